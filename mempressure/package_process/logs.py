"""Log records of a package process, brought to the worker whose call it runs.

In the process a handler at the root logger gives each record as plain values to the connection; the worker has its own
loggers handle it. Importing `logging` takes 2.4 MiB: neither side does it for this.
"""

import os
import sys

TYPE_CHECKING = False  # importing typing would be a quarter of a package process's start
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable
    from typing import Any

_ROOT = "root"


def levels() -> dict[str, int]:
    """Return the levels that this process has set, by the logger's name ("root" too); empty without `logging`."""
    logging = sys.modules.get("logging")
    if logging is None:
        return {}
    loggers = list(logging.root.manager.loggerDict.items())
    found = {name: level for name, logger in loggers if (level := getattr(logger, "level", 0))}
    return found | {_ROOT: logging.root.level}


def apply_levels(taken_over: dict[str, int]) -> None:
    """Give loggers of this process the levels that a worker has set, but for those that have one here already.

    Args:
        taken_over: what `levels` returned in the worker.
    """
    import logging

    for name, level in taken_over.items():
        logger = logging.getLogger(name)
        if logger.level == (logging.WARNING if logger is logging.root else logging.NOTSET):
            logger.setLevel(level)


def emit(record: "dict[str, Any]") -> None:
    """Have this process's loggers handle a record of a package process, as if it had been logged here.

    Levels, filters and handlers are this process's, in the calling thread. A filter that fails is reported on standard
    error, as `logging` does for handlers; the caller is reading an answer.

    Args:
        record: what `Forwarding` has given to `send`.
    """
    import logging

    try:
        logger = logging.getLogger(record["name"])
        if logger.isEnabledFor(record["levelno"]):
            logger.handle(logging.makeLogRecord(record))
    except Exception:  # noqa: BLE001 - an application's filter
        if logging.raiseExceptions:
            import traceback

            traceback.print_exc()


class Forwarding:
    """The log records of this process, sent to the worker whose call it runs.

    What is logged while no call runs, or in processes forked from this one, goes to standard error from level WARNING
    on, as without any configuration. So does what cannot be sent.

    Args:
        taken_over: what `levels` returned in the worker that started this process.
    """

    def __init__(self, taken_over: dict[str, int]) -> None:
        self._levels = taken_over
        self._handler: Any = None

    def begin(self, send: "Callable[[dict[str, Any]], None]") -> None:
        """Send records from here on, which is called before each body.

        It does so once something has imported `logging`, unless the application has configured it in this process:
        where the root logger has a handler of its own, records are that one's.

        Args:
            send: called with one record at a time, in the thread that logs it, as a dict of plain values.
        """
        logging = sys.modules.get("logging")
        if logging is None or not hasattr(logging, "root"):  # another thread is importing it
            return
        others = [
            handler
            for handler in logging.root.handlers
            if handler is not self._handler and not isinstance(handler, logging.NullHandler)
        ]
        if others:
            if self._handler is not None:
                logging.root.removeHandler(self._handler)
            return
        if self._handler is None:
            apply_levels(self._levels)
            self._handler = _new_handler()
        logging.root.addHandler(self._handler)  # once only, however often it is called
        self._handler.send = send

    def end(self) -> None:
        """Send no further record; returns when none is being sent, so that the result may be."""
        handler = self._handler
        if handler is not None:
            handler.acquire()
            handler.send = None
            handler.release()


def _new_handler() -> "logging.Handler":
    import logging

    class _Handler(logging.Handler):
        """Gives records to `send`; `logging` makes its callers take turns."""

        send: "Callable[[dict[str, Any]], None] | None" = None
        sending = False
        owner = os.getpid()

        def emit(self, record: logging.LogRecord) -> None:
            if _handled_below_root(record):
                return
            # A forked child must not write into the connection, nor a record that is logged while one is sent.
            if self.send is None or self.sending or os.getpid() != self.owner:
                _to_standard_error(record)
                return
            self.sending = True
            try:
                plain = _plain_record(record)
            except Exception:  # noqa: BLE001 - as each handler does: its message and arguments do not fit
                self.handleError(record)
                return
            else:
                self._send(plain, record)
            finally:
                self.sending = False

        def _send(self, plain: "dict[str, Any]", record: logging.LogRecord) -> None:
            try:
                if self.send is not None:
                    self.send(plain)
            except OSError:  # the worker has gone
                self.send = None
                _to_standard_error(record)
            except Exception:  # noqa: BLE001 - logging never fails in who logs
                _to_standard_error(record)

    return _Handler()


def _to_standard_error(record: "logging.LogRecord") -> None:
    import logging

    last = logging.lastResort
    if last is not None and record.levelno >= last.level:
        last.handle(record)


def _handled_below_root(record: "logging.LogRecord") -> bool:
    """Return whether a handler of a logger below the root has had a record: the application has configured that one."""
    import logging

    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and logger is not logging.root:
        if any(record.levelno >= each.level and not isinstance(each, logging.NullHandler) for each in logger.handlers):
            return True
        logger = logger.parent
    return False


def _plain_record(record: "logging.LogRecord") -> "dict[str, Any]":
    """Return the attributes of a record as plain values, with its message and its exception as texts."""
    import logging

    values = dict(vars(record))
    for name in ("msg", "args", "exc_info", "exc_text", "message"):
        values.pop(name, None)
    plain = {name: _plain(value) for name, value in values.items()}
    text = record.exc_text
    if not text and record.exc_info:
        text = logging.Formatter().formatException(record.exc_info)
    return plain | {"msg": record.getMessage(), "args": None, "exc_info": None, "exc_text": text}


def _plain(value: "Any", depth: int = 4) -> "Any":
    """Return a value that needs no package to be unpickled: built-in ones as they are, others as what repr says."""
    if value is None or type(value) in {bool, int, float, str, bytes}:
        return value
    if type(value) in {list, tuple, set, frozenset} and depth:
        return type(value)(_plain(item, depth - 1) for item in value)
    if type(value) is dict and depth:
        return {_plain(key, depth - 1): _plain(item, depth - 1) for key, item in value.items()}
    kinds: tuple[Any, ...] = (int, float, str, bytes)
    for kind in kinds:  # NumPy's numbers and strings are some
        if isinstance(value, kind):
            return kind(value)
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a broken __repr__ must not lose the record
        return f"<{type(value).__name__}>"
