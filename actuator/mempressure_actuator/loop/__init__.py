"""The actuator's control loop: which scopes are under pressure, what may be done about it, and doing it."""
