"""The agent: one daemon thread in a worker that publishes its state each second and takes orders on a socket."""

import atexit
import logging
import os
import selectors
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mempressure.config.paths import own_runtime_directory, socket_path
from mempressure.errors import MempressureError
from mempressure.measure.descriptor import WakeUp
from mempressure.state import files
from mempressure.state.liveness import remove_dead
from mempressure.state.records import WorkerState
from mempressure.worker.order_socket import OrderSocket

if TYPE_CHECKING:
    from typing import Any, Protocol

    from mempressure.act.orders import Order
    from mempressure.log_once import LogOnce
    from mempressure.worker.order_connections import OrderConnections

    class AgentSubject(Protocol):
        """What an agent publishes and passes orders to: a `ManagedWorker` or an observer of `mempressure run`."""

        def sample(self, *, thorough: bool) -> WorkerState | None:
            """Measure the worker and return its state; None if it is no worker after all: the agent then ends.

            `thorough` measures however recent the last measurement is.
            """

        def carry_out(self, order: Order) -> tuple[dict[str, Any], Callable[[], None] | None]:
            """Carry out an order; return its answer without the id, and what to do once the answer is sent."""


_log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
"""How often the state is published."""
FORKED_DELAY_SECONDS = 0.3
"""The delay in a forked child, and under `mempressure run`: by then most forked children have executed another program,
and a server has started, so that no socket is made in vain."""
PUBLISH_AT_MOST_EVERY = 0.1
"""Seconds between two publications asked for by loads and unloads: a burst of them costs ten ticks a second at most."""


class Agent:
    """Publishes the state of `subject`, and passes it the orders that arrive.

    Args:
        subject: a `ManagedWorker` or an observer of `mempressure run`.
        runtime: returns the runtime directory, which is another one where the process has changed its user.
        trusted_uids: users besides root and this process' own that may give orders.
        delay_seconds: seconds before it creates its socket and state file; see `FORKED_DELAY_SECONDS`.
        may_open: whether it may create them then: they cannot be removed once the process has another user.
        at_tick: called once a second, in the agent's thread.
    """

    def __init__(
        self,
        subject: "AgentSubject",
        *,
        runtime: Callable[[], Path],
        trusted_uids: tuple[int, ...] = (),
        delay_seconds: float = 0.0,
        may_open: Callable[[], bool] = lambda: True,
        at_tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._subject = subject
        self._at_tick = at_tick
        self._runtime = runtime
        self._trusted = {0, *trusted_uids}
        self._user = -1
        self._delay = delay_seconds
        self._may_open = may_open
        self._pid = 0
        self._connections: OrderConnections | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._stop_lock = threading.RLock()
        self._once: LogOnce | None = None

    def start(self) -> bool:
        """Start the thread; return False, having logged why, where the runtime directory cannot be used.

        With a delay the directory is used only after it: then a failure is only logged.
        """
        self._pid = os.getpid()
        self._wake_up = WakeUp()
        self._selector = _make_selector()
        self._selector.register(self._wake_up.reader, selectors.EVENT_READ)
        self._name_files()
        if not self._delay and not self._open():
            self._close()
            return False
        self._thread = threading.Thread(target=self._run, name="mempressure-agent", daemon=True)
        self._thread.start()
        atexit.register(self.stop)
        return True

    def publish_soon(self) -> None:
        """Have the state published before the next tick: something was loaded or unloaded."""
        if self._thread is not None and os.getpid() == self._pid:
            self._wake_up.send()

    def stop(self) -> None:
        """End the thread and remove the state file and the socket; does nothing in a forked child."""
        if os.getpid() != self._pid:
            return
        # It may be called twice, at once too: by a server's own end, by `atexit`, and for a subject without a state.
        with self._stop_lock:
            thread = self._thread
            if thread is None:
                return
            self._stopping.set()
            self.publish_soon()
            self._thread = None
            thread.join(2 * TICK_SECONDS)
            atexit.unregister(self.stop)
            self._close()
            self._remove_files()

    def forget(self) -> None:
        """Close what a forked child inherited, leaving its parent's files alone."""
        if self._thread is not None:
            self._thread = None
            atexit.unregister(self.stop)
            self._close()

    def _open_later(self) -> bool:
        """Open after the delay, or as soon as there is something to publish: a worker that serves need not wait."""
        while True:
            if self._wait(self._delay):
                self._wake_up.clear()
            if self._stopping.is_set():
                return False
            if self._may_open():
                self._name_files()  # of the user that a worker of root's server has become meanwhile
                return self._open()

    def _name_files(self) -> None:
        self._user = os.geteuid()
        self._trusted.add(self._user)
        self._socket_path = socket_path(self._runtime() / str(self._user), self._pid)
        self._state_path = self._socket_path.with_suffix(".state")
        self._socket = OrderSocket(self._socket_path, selector=self._selector, trusted=self._trusted)

    def _open(self) -> bool:
        try:
            remove_dead(own_runtime_directory(self._runtime()))
            self._socket.ensure()
        except (OSError, MempressureError) as error:
            _log.error("agent not started, this worker is not managed: reason=%r", str(error))
            return False
        return True

    def _close(self) -> None:
        self._socket.close()
        if self._connections is not None:
            self._connections.close()
        self._selector.close()
        self._wake_up.close()

    def _remove_files(self) -> None:
        for path in (self._socket_path, self._state_path):
            with suppress(FileNotFoundError, PermissionError):  # gone; or of the user that this process was before
                os.unlink(path)

    def _follow_user(self) -> None:
        """Move to the directory of the user that this process has become, for good and not for a moment."""
        if os.geteuid() == self._user or os.getuid() != os.geteuid():
            return
        self._socket.close()
        self._remove_files()
        self._name_files()
        self._connections = None
        own_runtime_directory(self._runtime())

    def _wait(self, seconds: float) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for an event, on descriptors that are still this agent's: an application may have closed any of them."""
        if not self._wake_up.is_ours():
            self._survive(self._renew_wake_up)
        self._socket.leave_if_lost()
        if self._connections is not None:
            self._connections.drop_lost()
        return self._selector.select(seconds)

    def _renew_wake_up(self) -> None:
        if self._wake_up.reader in self._selector.get_map():
            self._selector.unregister(self._wake_up.reader)
        self._wake_up.renew()
        self._selector.register(self._wake_up.reader, selectors.EVENT_READ)
        _log.info("agent: the application has closed its descriptors, as a daemon does; it goes on with new ones")

    def _run(self) -> None:
        if self._delay and not self._open_later():
            return
        next_tick = time.monotonic()
        published = 0.0
        soon = False
        while not self._stopping.is_set():
            due = published + PUBLISH_AT_MOST_EVERY if soon else next_tick
            for key, _ in self._wait(max(0.0, due - time.monotonic())):
                if key.fileobj is self._wake_up.reader:
                    self._wake_up.clear()
                    soon = True
                else:
                    self._survive(partial(self._handle, key))
            now = time.monotonic()
            if now >= next_tick or (soon and now >= published + PUBLISH_AT_MOST_EVERY):
                self._survive(partial(self._tick, now, thorough=soon))
                published, soon = now, False
                if now >= next_tick:
                    self._survive(self._at_tick)
                    # At the same rate however long a tick takes; after a pause of several, none is made up for.
                    next_tick = max(next_tick + TICK_SECONDS, now)

    def _handle(self, key: selectors.SelectorKey) -> None:
        """Handle an event of the order socket or one of its connections."""
        if self._connections is None:
            from mempressure.worker.order_connections import OrderConnections  # paid for with the first connection

            self._connections = OrderConnections(
                self._socket,
                selector=self._selector,
                trusted=self._trusted,
                carry_out=self._subject.carry_out,
                publish=partial(self._publish, thorough=True),
                publish_soon=self.publish_soon,
            )
        self._connections.handle(key)

    def _tick(self, now: float, *, thorough: bool) -> None:
        if self._connections is not None:
            self._connections.close_idle(now)
        self._follow_user()
        self._publish(thorough=thorough)
        self._socket.ensure()
        self._once = None  # a problem that comes back is logged again

    def _survive(self, step: Callable[[], None]) -> None:
        """Do a step; whatever it raises is logged, once while it stays the same, and the thread lives on."""
        try:
            step()
        except Exception as error:  # noqa: BLE001 -- a worker whose agent has died can never be relieved again
            if self._once is None:
                from mempressure.log_once import LogOnce  # most workers have nothing to log

                self._once = LogOnce(__name__)
            self._once.warning("step", "agent: state=%s reason=%r", self._state_path, str(error) or repr(error))

    def _publish(self, *, thorough: bool) -> None:
        sample = self._subject.sample(thorough=thorough)
        if sample is None:
            threading.Thread(target=self.stop, name="mempressure-stop", daemon=True).start()
            return
        try:
            files.publish(sample, self._state_path)
        except FileNotFoundError:  # the runtime directory was cleaned
            own_runtime_directory(self._runtime())
            files.publish(sample, self._state_path)


def _make_selector() -> selectors.BaseSelector:
    """Return one without a descriptor, which others might close; what gevent and eventlet put in its place has none."""
    if selectors.DefaultSelector is getattr(selectors, "EpollSelector", None):
        return selectors.PollSelector()
    return selectors.DefaultSelector()
