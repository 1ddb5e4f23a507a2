"""What a worker publishes about itself, and reading it: the contract between workers and services."""
