"""What Alertmanager sends: notifications, the leases that alerts renew, and the heartbeat."""
