"""What the witness makes of each document that applications could read: whatever grows must be earned, and a fall has a reason."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from core.model.cluster import Broken, Cluster
from core.model.documents import NOBODY, Given, audiences, revision
from core.model.evidence import Evidence, interval
from core.model.promises import PROMISES
from core.model.replica import START
from core.model.server import Object
from session_rollout.api import ACTIONS
from session_rollout.api.checks import OnBreach
from session_rollout.api.phases import Phase
from session_rollout.api.quantities import duration
from session_rollout.api.rollback import RollbackScope
from session_rollout.core.steps import Increment, increments, phase_named


@dataclass
class Landings:
    """The half of a witness that looks at documents; `heeds` are the promises that it objects for."""

    cluster: Cluster
    heeds: frozenset[str] = frozenset(PROMISES)
    reached: dict[str, Given] = field(default_factory=dict)  # by feature: what the operator published last
    known: dict[str, Given] = field(default_factory=dict)  # by feature: what users had at the last look
    disabled: set[str] = field(default_factory=set)  # features that an EmergencyDisable has named
    fallen: set[str] = field(default_factory=set)  # rolled back, and not tried again since
    complete: set[str] = field(default_factory=set)  # phases
    bake_before: timedelta | None = None  # of the spec before an edit, if the promotion may have been stored before it
    completed_at: dict[str, Given] = field(default_factory=dict)  # the audience that each phase was complete with
    approved: set[tuple[str, int]] = field(default_factory=set)
    refused: str | None = None  # the rollback that users had not seen at the last look
    answers: dict[str, Object] = field(default_factory=dict)  # by UID
    heard: set[str] = field(default_factory=set)  # UIDs whose response was taken into account
    reasons: set[str] = field(default_factory=set)  # for a fall: Abort, Retry, Reset, Adopt, Delete, or an earlier Decision
    promotes: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # accepted, by UID: where, and for how many calm looks
    owed: set[str] = field(default_factory=set)  # Promotes that were accepted and whose audience is not published yet
    spent: set[str] = field(default_factory=set)  # Promotes whose audience was published
    earned: set[str] = field(
        default_factory=set
    )  # phases that had earned their next audience when no document could be written
    begun: bool = False  # what was decided before the last edit or pause may still be on its way
    fell: bool = False  # with the document that has just landed
    grew: list[str] = field(default_factory=list)  # phases, by the document that has just landed
    void: set[str] = field(default_factory=set)  # UIDs of actions whose effect an edit may have ended before their response
    killed: set[str] = field(default_factory=set)  # by somebody who edited the document
    highest: int = 0
    by_hand: bool = False
    foreign: bool = False  # somebody has edited the document, or its object has lost its status: at any time before
    paused: bool = False
    landed: bool = False  # the operator published since the last look
    orphaned: bool = False  # the object was created again; nothing in the cluster was published by it
    promoted: bool = False
    released: bool = False  # users who were held back have the features
    met: set[str] = field(default_factory=set)  # UIDs of EmergencyDisable actions whose features were off in the document
    shipped: set[str] = field(default_factory=set)  # features that a promotion has released from their guards
    changed: datetime = START  # when the document changed last
    broken: Broken | None = None

    def __post_init__(self) -> None:
        self.evidence = Evidence(self.cluster, guards_from=self.cluster.time)
        self.cluster.server.on_document.append(self._landed)

    def objects(self, promise: str, sentence: str) -> None:
        """Raise, unless nobody asked about this promise."""
        if promise in self.heeds:
            # Kept as well, because an operator that survives every exception would swallow it in the middle of a write.
            self.broken = self.broken or Broken(promise, f"{PROMISES[promise]}; {sentence}")
            raise self.broken

    # --- the document changed

    def _landed(self) -> None:
        text, self.changed = self.cluster.document, self.cluster.time
        now = audiences(text)
        if not self.by_hand:
            if revision(text) < self.highest:
                self.objects("revision", f"{revision(text)} after {self.highest}")
            self.highest = max(self.highest, revision(text))
            for name in self._newest_first({**self.known, **now}):
                self._changed(name, self.known.get(name, NOBODY), now.get(name, NOBODY), now)
            self._phases_grew()
            self._phases_fell()
            self.landed = True
        self.known = now
        self._note_met()

    def _note_met(self) -> None:
        """What an action asks for may also be so already, and end before its response."""
        disabling = self._waiting("EmergencyDisable")
        self.met |= {raw["metadata"]["uid"] for raw in disabling if not self._any_on(raw["spec"])}

    def _newest_first(self, names: Any) -> list[str]:
        order = [feature for phase in self.cluster.spec.phases for feature in phase.features] if self.cluster.raw else []
        return sorted(names, key=lambda name: order.index(name) if name in order else -1, reverse=True)

    def _changed(self, name: str, old: Given, new: Given, now: dict[str, Given]) -> None:
        reached = self.reached.get(name, NOBODY)
        self._hold_back(name, old, new)
        if new.exceeds(old):
            if name in self.off and not self._waiting("EmergencyEnable"):
                self.objects("emergency-lifts", f"{name} is on at {new.percent}%")
            if name in self._dependents(self.killed) and not self._waiting("EmergencyEnable"):
                self.objects("kill-by-hand", f"{name} is on at {new.percent}%")
            if new.exceeds(reached):
                self._grew(name, reached, new)
                self.reached[name] = new
        elif old.exceeds(new):
            if new.emergency:
                if name not in self._dependents(self.disabled | self.killed) | self._disabling():
                    self.objects("no-fall", f"{name} is off in an emergency that nobody asked for")
            elif not old.exceeds(reached):
                self._fell(name, old, new, now)

    def _hold_back(self, name: str, old: Given, new: Given) -> None:
        """Whoever has a feature has it without these users, unless the rollout has baked or was promoted with it."""
        held = self.cluster.spec.control.held_back if self.cluster.raw is not None else 0
        if old.on and new.percent >= old.percent and new.held_back > old.held_back and new.percent + old.held_back > 100:
            if old.percent == new.percent and not self._may_fall(name):
                self.objects("no-fall", f"{name} has {new.held_back}% fewer users")
            self.released = False
        more = new.exceeds(old) or (old.on and new.on and old.held_back > new.held_back)
        if not held or not more or new.held_back or self.begun or not (new.groups or new.percent > 100 - held):
            return
        if name in self.shipped or self.orphaned or self.released:
            return
        spec, guards = self.cluster.spec, self.evidence.breached()
        stopped = spec.suspend or (self.paused and not self._waiting("Resume"))
        promoted = self.promotes or self.owed or self._waiting("Promote")
        late = () if promoted else (phase for phase in spec.phases if phase.name not in self.complete)
        left = [each.name for each in late if self._not_earned(each, self.reached.get(each.features[0], NOBODY), last=True)]
        if guards or stopped or left or self.evidence.baked < duration(spec.bake):
            self.objects("held-back", f"{name} for all: {guards}, {stopped}, {left}, {self.evidence.baked}")
        self.released = True

    def _grew(self, name: str, reached: Given, new: Given) -> None:
        if name in self.fallen and not self._waiting("Retry", "Reset", "Adopt"):
            self.objects("stays-off", f"{name} was rolled back, and is at {new.percent}% again")
        phase = self._phase_of(name)
        if phase is None or self.cluster.raw is None:
            if not self.begun:
                self.objects("stays-off", f"{name} is at {new.percent}%, and in no phase")
            return
        if self.cluster.spec.suspend and not self.begun:
            self.objects("stopped", f"{name} grew while suspended")
        lasting = [guard for guard in self.evidence.lasting(strict=True) if guard.on_breach is OnBreach.ROLLBACK]
        if lasting and not self.orphaned:
            self.objects("breach-acts", f"{name} grew with guard {lasting[0].name} in breach")
        if self.promotes or self.owed or self._waiting("Promote") or self.begun:
            self.complete |= {before.name for before in self._before(phase)}
        elif phase.name not in self.grew:
            self._must_be_earned(phase, reached)
        self.grew.append(phase.name)

    def _phases_grew(self) -> None:
        for name in self.grew:
            self.evidence.grown(name)
            self.approved &= self._steps_now()  # an approval is about a step, also of a ramp
            self.begun, self.earned = False, set()
            self.spent |= self.owed | {raw["metadata"]["uid"] for raw in self._waiting("Promote")}
            self.owed = set()
        self.grew = []

    def _phases_fell(self) -> None:
        if self.fell:
            self.evidence.restart()
            self.evidence.restart_guards()
            self.owed, self.begun, self.fell, self.earned = set(), False, False, set()

    def _before(self, phase: Phase) -> tuple[Phase, ...]:
        phases = self.cluster.spec.phases
        return phases[: phases.index(phase)]

    def _must_be_earned(self, phase: Phase, reached: Given) -> None:
        if guards := self.evidence.breached():
            self.objects("breach-keeps", f"phase {phase.name} grew with guard {guards[0].name} out of bounds")
        if self.paused and not self._waiting("Resume", "Retry"):
            self.objects("stopped", f"phase {phase.name} grew while paused")
        if reached.on:
            if phase.name not in self.earned:
                self._object_unless_earned(phase, reached)
            return
        for before in self._before(phase):
            if before.name not in self.complete:
                self._object_unless_earned(before, self.reached.get(before.features[0], NOBODY), last=True)
                self.complete.add(before.name)

    def _steps_now(self) -> set[tuple[str, int]]:
        """The steps that have the audiences of now."""
        return {
            (phase.name, increment.step)
            for phase in self.cluster.spec.phases
            for increment in increments(phase)
            if same(increment, self.known.get(phase.features[0], NOBODY))
        }

    def _object_unless_earned(self, phase: Phase, reached: Given, *, last: bool = False) -> None:
        if problem := self._not_earned(phase, reached, last=last):
            self.objects(*problem)

    def _not_earned(self, phase: Phase, reached: Given, *, last: bool) -> tuple[str, str] | None:
        """The promise that leaving this audience would break, and why; None when it is earned."""
        increment = next((known for known in increments(phase) if same(known, reached)), None)
        if increment is None:
            return ("order", f"phase {phase.name} is at {reached.percent}%, which is no step of it") if last else None
        if last and increment != increments(phase)[-1]:
            return "order", f"phase {phase.name} is at {reached.percent}%, which is not its last step"
        evidence = self.evidence
        if evidence.held() < increment.hold or not evidence.all_judged():
            counted = f"{evidence.held()} of {increment.hold} were judged"
            return "judged", f"phase {phase.name} left {reached.percent}% when {counted}"
        if not evidence.all_passing() or evidence.too_much_failed(increment.hold):
            return "passing", f"phase {phase.name} left {reached.percent}% after {evidence.failing(increment.hold)} of failures"
        awaiting = {(raw["spec"]["phase"], raw["spec"]["step"]) for raw in self._waiting("Approve") if "phase" in raw["spec"]}
        if increment.approval and increment.last_of_step and (phase.name, increment.step) not in self.approved | awaiting:
            return "approved", f"phase {phase.name} left step {increment.step}"
        return None

    def _fell(self, name: str, old: Given, new: Given, now: dict[str, Given]) -> None:
        if not self._may_fall(name):
            self.objects("no-fall", f"{name} fell from {old.percent}% to {new.percent}%")
        phase = self._phase_of(name)
        order = [known.name for known in self.cluster.spec.phases] if self.cluster.raw else []
        if phase is not None and self.cluster.spec.rollback.scope is not RollbackScope.ALL and not self.reasons & {"Reset"}:
            later = [known for known in self.cluster.spec.phases if order.index(known.name) > order.index(phase.name)]
            if any(now.get(feature, NOBODY).on for known in later for feature in known.features):
                self.objects("newest-first", f"{name} fell while a later phase is on")
        self.reached[name] = new
        self.released = False
        self.fallen |= {name} if not self.begun else set()  # an edit while a rollback is on its way is a new try after it
        self.shipped.discard(name)
        self.paused = False
        if phase is not None:
            self.complete.discard(phase.name)
        self.fell = True

    def _may_fall(self, name: str) -> bool:
        asked = {"Abort", "Retry", "Reset", "Delete", "Decision"}
        if self.reasons & asked or self._waiting("Abort", "Retry", "Reset"):
            return True
        if self.orphaned and self.foreign and self._disabling() | self.disabled:
            return True  # in a document that is kept, an emergency leaves nothing of rules that somebody has edited
        return self._must_fall(name)

    def _must_fall(self, name: str) -> bool:
        """Whether a guard or a deadline takes this feature away now."""
        if any(guard.on_breach is OnBreach.ROLLBACK for guard in self.evidence.lasting(strict=False)):
            return True
        phase = phase_named(self.cluster.spec, self.evidence.phase)
        return phase is not None and self.evidence.deadline(phase, self._hold(phase, name), strict=False)

    # --- what people asked for

    def _actions(self) -> list[Object]:
        return [raw for path, raw in self.cluster.server.objects.items() if f"/{ACTIONS}/" in path]

    def _waiting(self, *kinds: str) -> list[Object]:
        """Actions that are under way: without a response, or accepted since the last look."""
        return [raw for raw in self._actions() if raw["spec"]["action"] in kinds and self._is_under_way(raw)]

    def _is_under_way(self, raw: Object) -> bool:
        return "status" not in raw or (raw["status"]["accepted"] and raw["metadata"]["uid"] not in self.heard)

    @property
    def off(self) -> set[str]:
        """Features in an emergency, with those that depend on them as the spec is now: an edit may end a dependency."""
        return self._dependents(self.disabled)

    def _covers(self, spec: Object) -> set[str]:
        return self._dependents(self._named(spec))

    def _named(self, spec: Object) -> set[str]:
        features = {feature.name for feature in self.cluster.spec.features} if self.cluster.raw else set()
        every = features | set(self.known) | self.disabled  # an emergency may be about a feature that nothing has any more
        return every & set(spec.get("features") or every)  # a wrong name does not matter to the others

    def _named_after(self, uid: str, kind: str) -> set[str]:
        """Features of accepted actions of this kind that were requested after this one: responses may be late."""
        actions = self._actions()
        later = actions[[raw["metadata"]["uid"] for raw in actions].index(uid) + 1 :]
        accepted = (raw for raw in later if raw["spec"]["action"] == kind and raw.get("status", {}).get("accepted"))
        return {name for raw in accepted for name in self._named(raw["spec"])}

    def _dependents(self, names: set[str]) -> set[str]:
        for feature in (
            self.cluster.spec.features if self.cluster.raw else ()
        ):  # in the order of the spec: a prerequisite comes first in these worlds
            if names & set(feature.depends_on):
                names = names | {feature.name}
        return names

    def _any_on(self, spec: Object) -> bool:
        """Whether somebody has a feature that an emergency covers."""
        return any(self.known.get(name, NOBODY).on for name in self._covers(spec))

    def _disabling(self) -> set[str]:
        return {name for raw in self._waiting("EmergencyDisable") for name in self._covers(raw["spec"])}

    # --- the spec

    def _phase_of(self, name: str) -> Phase | None:
        phases = self.cluster.spec.phases if self.cluster.raw else ()
        return next((phase for phase in phases if name in phase.features), None)

    def _hold(self, phase: Phase, name: str) -> timedelta:
        reached = self.reached.get(name, NOBODY)
        return next((known.hold for known in increments(phase) if same(known, reached)), interval(self.cluster.spec))


def same(increment: Increment, given: Given) -> bool:
    return increment.percent == given.percent and set(increment.groups) == given.groups
