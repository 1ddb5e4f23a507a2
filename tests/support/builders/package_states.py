"""States of isolated packages, as a worker publishes them."""

from mempressure.state.records import PackageState


def isolated(name="pandas", size=0.0, **options):
    """Return an isolated package whose process, or processes, hold so many bytes, all of them private."""
    defaults = {"mechanism": "stop", "source": "process", "timeout": 60.0, "loaded": 1.0}
    sizes = {"memory_bytes": float(size), "proportional_bytes": float(size)}
    return PackageState(name=name, **(defaults | sizes | options))
