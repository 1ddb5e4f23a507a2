"""Messages about a form that was carried out, shown on the page that the browser is redirected to."""

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass

MAX_NOTICES = 100
"""Beyond this number the oldest unread notice is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Sentences, and the package that was not unloaded and may be unloaded by force."""

    sentences: tuple[str, ...]
    app: str = ""
    not_unloaded: str = ""


class Notices:
    """Unread notices; may be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unread: OrderedDict[str, Notice] = OrderedDict()

    def leave(self, notice: Notice) -> str:
        """Keep a notice and return a random name to read it by."""
        name = secrets.token_urlsafe(12)
        with self._lock:
            while len(self._unread) >= MAX_NOTICES:
                self._unread.popitem(last=False)
            self._unread[name] = notice
        return name

    def take(self, name: str) -> Notice | None:
        """Remove and return a notice; None if there is none of this name."""
        with self._lock:
            return self._unread.pop(name, None)
