"""What to do for a request through the API: unload one package, or trim every worker. Pure functions.

The same planning as under pressure (`mempressure.decide.plan`), with other preferences: `force` overrides idle time and
`keep_loaded`, never a package in use, and never what makes recycling a worker unsafe.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mempressure.act.mechanisms import mechanism, mechanisms
from mempressure.decide.alerts import callbacks_concerned
from mempressure.decide.eligibility import Rules, Strategy
from mempressure.decide.plan import Action, Plan, Target, make_plan
from mempressure.errors import UnknownPackageError
from mempressure.state.node import NodeReading
from mempressure.state.records import WorkerState

TRIM_LEVEL = "medium"
"""The alert level that a request to trim gives callbacks: that at which unloading begins."""
_NO_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class _RequestStrategy(Strategy):
    """Unloads after a package's own timeout, or at once if the request overrides preferences."""

    def idle_seconds(self, timeout: float) -> float:
        return 0.0 if self.overrides_preferences else timeout


def plan_unload(reading: NodeReading, package: str, *, app: str, force: bool, rules: Rules) -> Plan:
    """Return the actions that unload a package in one app, or in all that track it if `app` is empty.

    The plan's skips say which workers keep the package, and why.

    Raises:
        UnknownPackageError: no worker tracks the package, or none of that app; the message names what is tracked.
    """
    apps = apps_tracking(reading, package, app)
    plan = make_plan(
        [
            replace(reading.apps[name], workers=_narrowed(reading.apps[name].workers, package), counted=None)
            for name in apps
        ],
        mechanisms=mechanisms(),
        # High enough to touch workers, and below emergency, at which a sole worker would be recycled.
        usage=rules.thresholds.unload_packages,
        strategy=_RequestStrategy("forced" if force else "requested", _NO_LIMIT, 0.0, overrides_preferences=force),
        rules=replace(
            rules, unloading_enabled=True, recycle_from="never" if rules.recycle_from == "never" else "normal"
        ),
        now=reading.sampled,
    )
    return Plan(tuple(action for action in plan.actions if package in action.packages), plan.skips)


def plan_trim(reading: NodeReading) -> list[Action]:
    """Return an action for every worker that may be trimmed, and one before it where it has callbacks to call."""
    return [
        Action(name, app, (), (Target(worker, {}),), 0, "requested", level=TRIM_LEVEL)
        for app in reading.apps.values()
        for worker in app.workers
        if worker.serving
        for name, possible in (
            (
                "callbacks",
                callbacks_concerned(worker.callbacks_from, TRIM_LEVEL) and "on_pressure" not in worker.unsupported,
            ),
            ("trim", not worker.trim_refused),
        )
        if possible
    ]


def apps_tracking(reading: NodeReading, package: str, app: str) -> list[str]:
    """Return the names of the apps that track a package, or only `app` if it is given and does.

    Raises:
        UnknownPackageError: there is none; the message names the apps or packages that there are.
    """
    known = {name: {p.name for w in reading.apps[name].workers for p in w.packages} for name in sorted(reading.apps)}
    if app and app not in known:
        raise UnknownPackageError(f"no app {app!r} has workers here; known are {_listed(known)}")
    names = [name for name, packages in known.items() if package in packages and app in ("", name)]
    if not names:
        others = set().union(*(packages for name, packages in known.items() if app in ("", name)))
        where = f"app {app!r}" if app else "app here"
        raise UnknownPackageError(f"no worker of {where} tracks {package!r}; known are {_listed(others)}")
    return names


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _narrowed(workers: Iterable[WorkerState], package: str) -> tuple[WorkerState, ...]:
    """Return the workers with only those packages that unloading `package` concerns.

    Recycling a worker concerns everything it is recycled for. Workers that do not hold the package stay, without
    packages: they count when it is decided whether a worker is the only one.
    """
    narrowed = []
    for worker in workers:
        by = next((p.mechanism for p in worker.packages if p.name == package and p.loaded), None)
        ended_by = by if by is not None and mechanism(by).replaces_worker else None
        packages = [
            p
            for p in worker.packages
            # A worker that shares processes counts though it has not noticed yet that they run: it may be calling.
            if (p.name == package and (p.loaded or p.processes_id)) or (p.mechanism == ended_by and p.loaded)
        ]
        narrowed.append(worker.replaced(packages=packages))
    return tuple(narrowed)
