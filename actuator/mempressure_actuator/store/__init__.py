"""What the actuator keeps: leases and history in SQLite, and the usage of the last hour in memory."""
