"""Packages that are imported in the worker itself: tracking their imports, their use and their cost."""
