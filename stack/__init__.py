"""Runs everything together: the engines, both services, the sample and its load."""
