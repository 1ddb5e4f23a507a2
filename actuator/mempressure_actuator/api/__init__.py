"""The JSON API: its endpoints, access control, and its OpenAPI description."""
