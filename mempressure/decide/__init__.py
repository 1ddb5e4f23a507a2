"""Decisions as pure functions: readings and time are passed in; nothing here opens a file or asks a clock."""
