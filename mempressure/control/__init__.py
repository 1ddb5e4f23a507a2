"""The control loop: measure, decide, act, measure again, record."""
