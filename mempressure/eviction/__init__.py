"""In-place emptying of pure-Python packages: their modules stay where they are and are filled again at the next use."""

from mempressure.eviction.eviction import Eviction, evict

__all__ = ["Eviction", "evict"]
