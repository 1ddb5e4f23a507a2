"""The actuator: takes Alertmanager's notifications and the operator's wishes, and has idle packages unloaded."""
