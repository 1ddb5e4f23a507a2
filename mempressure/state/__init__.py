"""The state that workers publish, and reading it: the contract between workers and services."""
