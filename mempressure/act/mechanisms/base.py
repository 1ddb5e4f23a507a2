"""The base of mechanisms: name and traits, and how one is planned, ordered, carried out and rehearsed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    # A worker imports a mechanism to carry out an order: it plans and rehearses nothing.
    from mempressure.act.callbacks import PressureCallbacks
    from mempressure.act.orders import Order
    from mempressure.act.self_check import System
    from mempressure.act.supervisors.base import Supervisor
    from mempressure.decide.eligibility import Situation
    from mempressure.decide.plan import Action, Skip
    from mempressure.errors import UnknownPackageError
    from mempressure.isolation.package import IsolatedPackage
    from mempressure.packages.tracking import PackageTracker
    from mempressure.state.node import AppReading

Answer = dict[str, Any]
"""An agent's answer to an order: at least `reclaimed_bytes`, and `skipped`, the reason for doing nothing or None.

`notes`, where there are any, are lines for people on what was done.
"""


class Releasable(Protocol):
    """A resident or a cache, as a mechanism sees it."""

    def release(self, *, idle_for: float | None = None) -> tuple[int, str | None]:
        """Let go what it holds unless it was used less than so many seconds ago; bytes, or why it was left alone."""


class Worker(Protocol):
    """What a mechanism may use of the worker process that it acts in."""

    trim_stopped: str
    """Why this worker is trimmed no more; empty where it may be."""
    retiring: bool
    """Whether it is about to end, to be replaced by its supervisor."""

    @property
    def isolated(self) -> Mapping[str, "IsolatedPackage"]:
        """Return the isolated packages by name."""

    @property
    def residents(self) -> Mapping[str, Releasable]:
        """Return the residents and caches by name."""

    @property
    def tracker(self) -> "PackageTracker | None":
        """Return the tracker of packages that are imported in this process, if there are any."""

    @property
    def callbacks(self) -> "PressureCallbacks | None":
        """Return the application's `on_pressure` callbacks, if it has any."""

    @property
    def unsupported(self) -> Mapping[str, str]:
        """Return the features that cannot work in this process, each with the reason."""

    def system(self) -> "System":
        """Return what the self-check looks at, as it is now."""

    def supervisor(self) -> "Supervisor":
        """Return what replaces this worker when it ends."""

    def trim_refused(self) -> str:
        """Return why this worker must not be trimmed; empty where it may be."""

    def reason_not_to_end(self) -> str:
        """Return why this worker must not end now, whatever its packages; empty where it may."""

    def unknown_package_error(self, name: str) -> "UnknownPackageError":
        """Return the error for a package that is not declared in this process."""


class Rehearsal(Protocol):
    """What a mechanism may use of a rehearsal, which runs throw-away processes one after the other."""

    cycles: int

    def play(self, act: str, **options: str) -> dict[str, Any]:
        """Have a throw-away process play an act (`Mechanism.play`) and return what it found.

        Raises:
            RehearsalError: the process failed; the message says why.
        """


class Stage(Protocol):
    """What a mechanism may use of the throw-away process that rehearses it on one package."""

    package: str
    exercise: tuple[str, ...]
    """What stands for using the package, as arguments of `IsolatedPackage.call`; empty where it is only imported."""
    cycles: int
    options: Mapping[str, str]
    """As `Rehearsal.play` was given them."""

    def load(self) -> float:
        """Import the package; return what that took in seconds."""

    def use_and_pickle(self) -> bytes | str:
        """Use the package; return the pickled result, or why there is none that can be compared."""

    def pickled(self, result: object) -> bytes | str:
        """Return a result pickled, or why it cannot be compared."""

    def equal(self, first: bytes, second: bytes) -> bool | str:
        """Return whether two pickled results are equal, or why they cannot be compared."""

    def step(self, what: str) -> None:
        """Report progress, which also shows that this process is not stuck."""

    def settled_bytes(self) -> int:
        """Return this process' private memory without what is garbage."""


class Mechanism:
    """One way to give memory back.

    A subclass has `name`, `effect`, `plan` and `carry_out`, and the traits in which it differs; where it is
    rehearsed, which it is unless it says otherwise, also `rehearsal_steps` and `play`.
    """

    name: str
    effect: str
    """What it does, as a clause whose subject is its name; docs/concepts.md and the API's description have it."""
    advice = ""
    """What an application writes so that it can serve a package, `{package}`; `mempressure check` prints it."""
    unloads_packages = True
    """Whether it gives back what packages hold, so that they are counted, limited and rehearsed."""
    is_rehearsed = True
    """Whether it can be tried on a package in a throw-away process; not where it unloads what no package is."""
    ordered_for_package = False
    """Whether an order is for one package of a worker, the only one of its action, and not for the whole worker."""
    replaces_worker = False
    """Whether the worker ends for it: it takes its own counters with it, and a successor has to be waited for."""
    acts_below_unloading = False
    """Whether it still acts between the exit and the entry of unload_packages (0.75 to 0.80 by default): for what
    leaves the workers themselves untouched."""
    ignores_pauses = False
    """Whether it acts as soon as its plan says so, though a cycle has just ended, or such cycles freed too little."""
    acts_at_once = False
    """Whether all workers of an action are ordered at the same time, and not one after the other."""

    def plan(self, apps: Sequence["AppReading"], situation: "Situation") -> tuple[Iterable["Action"], Iterable["Skip"]]:
        """Return the actions that this mechanism could take now, the best first, and what it leaves alone: pure."""
        raise NotImplementedError

    def carry_out(self, worker: Worker, order: "Order") -> tuple[Answer, Callable[[], None] | None]:
        """Carry out an order in a worker; return the answer, and what is to be done once it was sent.

        Raises:
            UnknownPackageError: the package of the order is not declared in the worker.
        """
        raise NotImplementedError

    def rehearsal_steps(self, cycles: int) -> int:
        """Return how many steps `rehearse` reports."""
        raise NotImplementedError

    def rehearse(self, rehearsal: Rehearsal) -> dict[str, Any]:
        """Try this mechanism on a package in throw-away processes; return what was measured.

        That are the fields of `mempressure.rehearsal.judgement.Measurements`, each optional, and `incomparable`.

        Raises:
            RehearsalError: a process failed; the message says why.
        """
        return rehearsal.play(self.name)

    def play(self, stage: Stage) -> dict[str, Any]:
        """Do in a throw-away process what `rehearse` asked for; return what was found, as JSON can carry it."""
        raise NotImplementedError


def refusal(reason: str) -> dict[str, Any]:
    """Return what a rehearsal finds of a mechanism that cannot serve the package."""
    return {"refused": reason, "cycles": [], "levels": [], "equal": None}
