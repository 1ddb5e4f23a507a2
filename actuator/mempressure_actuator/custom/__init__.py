"""Custom actions: HTTP calls, commands and signals that the operator has configured for memory pressure."""
