"""The actuator's control loop: which scopes are under pressure, and acting on them within limits."""
