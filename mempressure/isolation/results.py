"""What results bring into the worker: an object of a package imports that package here, for good."""

import sys
import threading
from typing import Any

from mempressure.measure.process import anonymous_bytes
from mempressure.protocol import frames
from mempressure.protocol.frames import Payload

_CLASS = b"\x93"  # pickle.STACK_GLOBAL: the pickle has a class or function of a module


class ImportedByResults:
    """Notes what unpickling the results of one isolated package has imported into this worker.

    Attributes:
        size: bytes that the imports added.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told = False
        self.size = 0

    def decoded(self, payload: Payload, called: str) -> Any:
        """Return the value of a result, and note what unpickling it imported."""
        if _CLASS not in payload.body:  # by far the most: plain data
            return frames.decode(payload)
        before, modules = _anonymous_bytes(), len(sys.modules)
        value = frames.decode(payload)
        if len(sys.modules) > modules:
            imported = list(sys.modules)[modules:]
            self._note(value, called, imported, max(0, _anonymous_bytes() - before))
        return value

    def _note(self, value: Any, called: str, imported: list[str], size: int) -> None:
        names = sorted({name.partition(".")[0] for name in imported} - sys.stdlib_module_names)
        if not names:
            return
        with self._lock:
            self.size += size
            first, self._told = not self._told, True
        if first:
            import logging  # deferred: most workers never log here

            kind = type(value)
            logging.getLogger("mempressure").warning(
                "the result of %s, a %s.%s, has imported %s into this worker, which keeps %.1f MiB of it for good; "
                'return plain data, or declare the function with results="plain"',
                called,
                kind.__module__,
                kind.__qualname__,
                ", ".join(names),
                size / (1 << 20),
            )


def _anonymous_bytes() -> int:
    try:
        return anonymous_bytes()
    except OSError:  # no /proc
        return 0
