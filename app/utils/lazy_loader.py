"""What the sample uses of mempressure, under the path that the mission document gives it."""

from mempressure import LazyLoader, MemoryMonitor, UnloadResult, get_lazy_loader

__all__ = ["LazyLoader", "MemoryMonitor", "UnloadResult", "get_lazy_loader"]
