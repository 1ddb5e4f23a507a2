"""Custom actions: the operator's own emergency measures, from a file that only its owner can write."""
