"""Carrying out decisions: sending orders to workers, and the mechanisms that give memory back."""
