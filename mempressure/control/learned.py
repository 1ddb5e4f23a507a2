"""What the cycles so far have found, for the plans of later ones: calls, trims, the ageing of packages, quarantines."""

from collections.abc import Collection

from mempressure.act.executor import Outcome
from mempressure.act.mechanisms import mechanism
from mempressure.control.records import Scope
from mempressure.decide.eligibility import Experience
from mempressure.decide.plan import Action
from mempressure.decide.quarantine import Key, Quarantined, current, judged
from mempressure.decide.ranking import Ageing, observed, unloaded
from mempressure.state.node import NodeReading


class Learned:
    """Learns from readings and from the outcomes of actions. Times are Unix seconds and passed in."""

    def __init__(self) -> None:
        self._trimmed: dict[tuple[int, int], float] = {}
        """When each worker, by (pid, start_ticks), was last trimmed."""
        self._called: dict[Scope, dict[tuple[int, int], dict[str, float]]] = {}
        """When the callbacks of each worker were last called at each level, in the present episode of a scope."""
        self._ageing = Ageing()
        self._quarantine: dict[Key, Quarantined] = {}

    def observe(self, reading: NodeReading) -> None:
        """Note which packages were used since the last reading, and end quarantines that are over."""
        self._ageing = observed(self._ageing, reading.apps.values())
        self._quarantine = current(self._quarantine, now=reading.sampled)

    def experience(self, *, futile: Collection[object]) -> Experience:
        """Return what a plan should know, with the identities of actions that are not worth repeating."""
        called: dict[tuple[int, int], dict[str, float]] = {}
        for calls in self._called.values():  # a worker may be in two scopes under pressure: the host, and its app
            for worker, times in calls.items():
                known = called.setdefault(worker, {})
                known |= {level: max(when, known.get(level, when)) for level, when in times.items()}
        return Experience(
            trimmed=self._trimmed, called=called, futile=futile, ageing=self._ageing, quarantine=self._quarantine
        )

    def note(self, action: Action, outcome: Outcome, *, scope: Scope, started: float, ended: float) -> set[Key]:
        """Learn from an action on a scope; return what gave back too little and is quarantined for it."""
        if action.mechanism == "callbacks":
            for target in action.targets:
                worker = target.worker.pid, target.worker.start_ticks
                self._called.setdefault(scope, {}).setdefault(worker, {})[action.level] = started
                self._trimmed.pop(worker, None)  # what callbacks dropped may be garbage by now
            return set()
        if not mechanism(action.mechanism).unloads_packages:
            for target in action.targets:
                self._trimmed[(target.worker.pid, target.worker.start_ticks)] = started
            return set()
        if not outcome.workers:
            return set()
        self._ageing = unloaded(self._ageing, action.value)
        for key in quarantine_keys(action):
            self._quarantine = judged(
                self._quarantine,
                key,
                action.held(key[1]),
                # Some workers may have declined.
                expected_bytes=action.expected_bytes * outcome.workers / action.workers,
                reclaimed_bytes=outcome.reclaimed_bytes,
                now=ended,
            )
        # `judged` dates what it has quarantined now by `ended`.
        return {
            key for key in quarantine_keys(action) if key in self._quarantine and self._quarantine[key].since == ended
        }

    def end_episode(self, scope: Scope) -> None:
        """Forget when callbacks were called for a scope: it is relieved."""
        self._called.pop(scope, None)

    def forget_gone(self, reading: NodeReading) -> None:
        """Forget the workers that are not there any more."""
        living = {(worker.pid, worker.start_ticks) for app in reading.apps.values() for worker in app.workers}
        self._trimmed = {worker: when for worker, when in self._trimmed.items() if worker in living}
        for calls in self._called.values():
            for worker in calls.keys() - living:
                del calls[worker]


def quarantine_keys(action: Action) -> list[Key]:
    """Return the (app, package, mechanism) of each package that an action unloads; of a worker without a package."""
    if mechanism(action.mechanism).replaces_worker:
        return [(action.app.name, "", action.mechanism)]
    return [(action.app.name, package, action.mechanism) for package in action.packages]
