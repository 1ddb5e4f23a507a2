"""Logging a problem once while it lasts, instead of each time it is met."""

from collections.abc import Hashable

_MOST_REMEMBERED = 1000


class LogOnce:
    """Logs a line unless it is the last one that was logged for its key; remembers 1000 keys at most.

    A problem that changes is logged again, and so is one that comes back after `over`. May be used by several threads.

    Args:
        name: of the logger.
    """

    __slots__ = ("_logged", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._logged: dict[Hashable, str] = {}

    def info(self, key: Hashable, message: str, *args: object) -> None:
        """Log at level INFO; `key` says what the line is about, the rest is as for `logging`."""
        self._log("info", key, message, args)

    def warning(self, key: Hashable, message: str, *args: object) -> None:
        """Log at level WARNING."""
        self._log("warning", key, message, args)

    def error(self, key: Hashable, message: str, *args: object, exc_info: BaseException | None = None) -> None:
        """Log at level ERROR, with a traceback if an exception is given."""
        self._log("error", key, message, args, exc_info)

    def over(self, key: Hashable) -> bool:
        """Note that the problem of a key is over; return whether one had been logged."""
        return self._logged.pop(key, None) is not None

    def _log(
        self, level: str, key: Hashable, message: str, args: tuple[object, ...], exc_info: BaseException | None = None
    ) -> None:
        text = message % args
        if self._logged.get(key) == text:
            return
        if len(self._logged) >= _MOST_REMEMBERED:
            self._logged.clear()
        self._logged[key] = text
        import logging  # deferred: most workers have nothing to log

        log = getattr(logging.getLogger(self._name), level)
        log(message, *args, exc_info=exc_info, stacklevel=3)
