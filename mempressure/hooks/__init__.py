"""Hooks into the servers of an unchanged application: what manages it, and what has its workers share memory."""
