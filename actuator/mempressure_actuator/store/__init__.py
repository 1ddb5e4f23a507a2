"""What survives a restart: leases, history and usage, in SQLite."""
