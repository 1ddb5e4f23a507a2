"""What comes in from Alertmanager: notifications, the leases they renew, and the heartbeat."""
