"""The JSON API: its endpoints, who may use them, and its description."""
