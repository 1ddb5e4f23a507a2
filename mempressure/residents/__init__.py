"""Residents: large objects and caches of an application, loaded on first use and let go when idle or under pressure."""
