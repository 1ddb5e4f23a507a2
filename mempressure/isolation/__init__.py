"""Packages that run in a process of their own, whose end gives all of their memory back."""
