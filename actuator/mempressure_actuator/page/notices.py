"""What a form that was carried out has to say on the page that the browser is sent to next."""

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass

MAX_NOTICES = 100
"""The one that is oldest makes room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Sentences, and the package that may be unloaded by force where it was left alone."""

    sentences: tuple[str, ...]
    app: str = ""
    left_alone: str = ""


class Notices:
    """Notices that nobody has read; may be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unread: OrderedDict[str, Notice] = OrderedDict()

    def leave(self, notice: Notice) -> str:
        """Keep a notice and return the name under which it is read, which nobody can guess."""
        name = secrets.token_urlsafe(12)
        with self._lock:
            while len(self._unread) >= MAX_NOTICES:
                self._unread.popitem(last=False)
            self._unread[name] = notice
        return name

    def take(self, name: str) -> Notice | None:
        """Return a notice, once; None where there is none of this name any more."""
        with self._lock:
            return self._unread.pop(name, None)
