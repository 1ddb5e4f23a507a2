"""This process as a managed worker: what it publishes, and the orders that it takes."""
