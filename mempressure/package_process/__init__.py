"""The program inside a package process, and what it shares with the workers that call it."""
