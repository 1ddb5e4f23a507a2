"""The actuator: unloads idle packages when Alertmanager notifies it of memory pressure, or when people ask for it."""
