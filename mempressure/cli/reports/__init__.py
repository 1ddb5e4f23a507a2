"""What subcommands print for a person at a terminal, with rich: one module a subject."""
