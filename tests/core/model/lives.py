"""What can happen in a life: the events, and how each of them changes the world.

A life is a shape and a list of events; both are plain data, so that a life that went wrong can be written down as a story.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

from core.model.cluster import Cluster
from core.model.evidence import reach
from core.model.promises import PROMISES
from core.model.replica import Reading, Replica
from core.model.shapes import BY_HAND, SHAPES, applicable
from core.model.witness import Witness
from session_rollout.adapters.lease import UNACCOUNTED, UNKNOWN
from session_rollout.api.enums import ActionType, Verdict
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.observed import ClockJump
from session_rollout.core.steps import increments
from session_rollout.errors import Conflict, Forbidden, RolloutError, SpecError, Unavailable

Event = tuple[Any, ...]
GOOD, BAD, BREACH = Decimal("0.001"), Decimal("0.02"), Decimal("0.2")
NO_DATA, ERROR, UNCLEAR = Verdict.NO_DATA, Verdict.PROVIDER_ERROR, Verdict.INCONCLUSIVE
VALUES: dict[str, Decimal | Verdict] = {
    "good": GOOD,
    "bad": BAD,
    "breach": BREACH,
    "no data": NO_DATA,
    "error": ERROR,
    "unclear": UNCLEAR,
}
TICK = timedelta(seconds=10)
REFUSALS: dict[str, RolloutError] = {
    "403": Forbidden("Forbidden: not allowed"),
    "409": Conflict("Conflict: the object has been modified"),
    "422": SpecError("Invalid: a policy refuses it"),
    "429": Unavailable("API server: HTTP status 429"),
    "500": Unavailable("API server: HTTP status 500"),
    "503": Unavailable("API server: HTTP status 503"),
}
WRITES = ("status", "document", "answer")
PATIENCE = 40  # ticks that a calm rollout has to end, besides those in which its audiences warm up


@dataclass
class Life:
    """One rollout from its creation on."""

    shape: str = "plain"
    heeds: frozenset[str] = frozenset(PROMISES)
    cluster: Cluster = field(default_factory=Cluster)
    pattern: dict[str, list[str]] = field(default_factory=dict)  # values of the next ticks, by metric

    def __post_init__(self) -> None:
        self.spec = RolloutSpec.model_validate(SHAPES[self.shape])
        self.cluster.readings = {name: Reading(GOOD) for name in ("errors", "slow")}
        self.cluster.create(self.spec)
        self.witness = Witness(self.cluster, self.heeds)
        self.witness.reconcile()

    def live(self, events: list[Event]) -> "Life":
        """Everything that happens, in order."""
        for kind, *arguments in events:
            HAPPENINGS[kind](self, *arguments)
        return self

    # --- time

    def tick(self, step: timedelta = TICK) -> None:
        """Time passes, and the operator reconciles."""
        for metric, values in self.pattern.items():
            values.append(values.pop(0))
            self.cluster.readings[metric] = Reading(VALUES[values[-1]])
        self.cluster.time += step
        self.witness.reconcile()

    def wait(self, seconds: int, every: int = 10) -> None:
        """Time passes in ticks; `every` is how long one reconciliation takes at most."""
        for _ in range(seconds // every):
            self.tick(timedelta(seconds=every))

    def jump(self, seconds: int) -> None:
        """The clock of the API server is set; the process that leads goes on by elapsed time, and the next one adopts it.

        Two that lead with clocks of different hours are no life.
        """
        self.alone()
        cluster, by = self.cluster, timedelta(seconds=seconds)
        cluster.offset += by
        now = cluster.replica.clock.now()
        cluster.replica.memory.clock_jump = ClockJump(now, by, "api-server", cluster.time + cluster.offset - now)
        self.witness.reconcile()

    def proceed(self, until: str) -> None:
        """With good results and every approval, until the next audience, the next phase or the end."""
        cluster = self.cluster
        self.say("errors", "good")
        self.say("slow", "good")
        start = self._place(until)
        for _ in range(PATIENCE):
            if self._place(until) != start or cluster.status.outcome or cluster.condition("Stalled") == "True":
                return
            self._approve()
            self.tick()

    def _place(self, until: str) -> Any:
        current = self.cluster.status.current
        return {"step": self.cluster.document, "phase": current.phase, "stage": (current.stage, current.phase), "end": None}[
            until
        ]

    def _approve(self) -> None:
        for awaited in self.cluster.status.decision.approvals:
            fields = {"phase": awaited.phase, "step": awaited.step} if awaited.phase else {"check": awaited.check}
            self.cluster.request("Approve", generation=self.cluster.status.observed_generation, **fields)

    def calm(self) -> None:
        """Whatever hinders is taken away; then the rollout has to end, or to say what a person must do."""
        server, witness = self.cluster.server, self.witness
        server.refused, server.lost, server.held, server.unread, self.pattern = {}, set(), {}, False, {}
        self.alone()
        self.say("errors", "good")
        self.say("slow", "good")
        self.cluster.answering = True
        if self.cluster.spec.suspend:
            self.edit("continue")
        for _ in range(2):  # what was not read is learned in the first; an action of that second ends nothing
            self.tick()
        for action in ("Resume", "EmergencyEnable"):
            self.act(action)
        patience = PATIENCE + 2 * self._warming_up() // TICK  # an adopted audience warms up twice
        patience += PATIENCE // 2 if self.cluster.spec.control.held_back else 0  # for the release
        for _ in range(patience):
            if self.cluster.status.outcome or self.cluster.condition("Stalled") == "True":
                return
            self._approve()
            if self.cluster.status.paused_by:
                self.act("Resume")
            self.tick()
        witness.objects("ends", f"after {patience} calm intervals: {self.cluster.status.decision.message}")

    def _warming_up(self) -> timedelta:
        """How long all audiences together speak of the time before them."""
        spec = self.cluster.spec
        return sum(len(increments(phase)) for phase in spec.phases) * max(reach(spec, metric.name) for metric in spec.metrics)

    # --- results

    def say(self, metric: str, value: str, age: int = 0) -> None:
        """What a metric says from now on."""
        self.pattern.pop(metric, None)
        self.cluster.readings[metric] = Reading(VALUES[value], timedelta(seconds=age))
        self.witness.evidence.said()

    def repeat(self, metric: str, *values: str) -> None:
        """What a metric says at the next ticks, again and again."""
        self.pattern[metric] = list(values)

    def silence(self, seconds: int) -> None:
        """Results are on their way, for so long: the operator waits for them and does no work."""
        self.cluster.answering = False
        self.witness.evidence.kept_waiting(timedelta(seconds=seconds))
        self.cluster.time += timedelta(seconds=seconds)
        for key in self.cluster.keys:
            self.cluster.replica.memory.of(key).rested += seconds
        self.witness.reconcile()
        self.cluster.answering = True

    # --- people

    def edit(self, change: str) -> None:
        """Another spec."""
        changed = applicable(self.cluster.spec, change)
        if changed is not None:
            if changed != self.cluster.spec:
                self.witness.edited(changed)
            self.cluster.edit(changed)
            self.witness.reconcile()

    def act(self, action: str, name: str = "", **fields: Any) -> None:
        """An action that fits where the rollout is."""
        if action not in {known.value for known in ActionType}:
            return
        current, generation = self.cluster.status.current, self.cluster.status.observed_generation
        place = {
            "generation": generation,
            "phase": current.phase or "one",
            "step": max(current.step, 1),
            "percent": current.percent,
        }
        fitting = place if action in {"Approve", "Promote"} else {"generation": generation} if action == "Retry" else {}
        self.cluster.request(action, name, **{**fitting, **fields})
        self.witness.reconcile()

    def disable(self, *features: str) -> None:
        """An emergency for these features."""
        self.act("EmergencyDisable", features=list(features))

    def enable(self, *features: str) -> None:
        """The end of an emergency for these features alone."""
        self.act("EmergencyEnable", features=list(features))

    def act_again(self, action: str) -> None:
        """An action of a name that was used before, whose object is gone."""
        path = next((path for path in self.cluster.server.objects if path.endswith("/again")), None)
        if path is not None:
            if "status" not in self.cluster.server.objects[path]:
                return
            gone = self.cluster.server.remove(path)
            self.cluster.replica.action_changed(gone, deleted=True)
        self.act(action, "again")

    def act_then_edit(self, action: str, change: str) -> None:
        """An action and an edit before the operator comes to either."""
        changed = applicable(self.cluster.spec, change)
        if changed is not None and changed != self.cluster.spec:
            self.witness.edited(changed)
            self.cluster.edit(changed)
        self.act(action)

    def act_and_edit(self, action: str, change: str) -> None:
        """An action, and an edit once it has its response."""
        self.act(action)
        self.edit(change)

    def say_and_act(self, metric: str, value: str, action: str) -> None:
        """A result and an action that the operator comes to at one moment."""
        self.say(metric, value)
        self.act(action)

    def rest(self, seconds: int) -> None:
        """Somebody pauses the rollout for a while."""
        self.act("Pause")
        self.wait(seconds)
        self.act("Resume")

    def by_hand(self, change: str) -> None:
        """Somebody edits the flag document."""
        self.witness.by_hand = True
        before = dict(self.witness.known)
        self.cluster.write_document(BY_HAND[change])
        self.witness.wrote_by_hand(before)
        self.witness.by_hand = False
        self.witness.reconcile()

    def copy(self, change: str) -> None:
        """Somebody edits a copy of the flag document, which changes nothing."""
        self.cluster.write_document(BY_HAND[change], suffix="-copy")
        self.witness.reconcile()

    def recreate(self) -> None:
        """The object is deleted and created again; the document stays, without an owner."""
        if self.cluster.spec.deletion_policy == "Off":
            self.witness.reasons.add("Delete")
        self.cluster.delete()
        server = self.cluster.server
        if not ({"document", "status"} & set(server.refused) or server.unread):  # else a real object would still wait
            self.witness.deleted()
        self.cluster.create(self.spec)
        self.cluster.take_over()
        self.witness.recreated()
        self.witness.reconcile()

    def restore(self) -> None:
        """The object is restored from a backup, without its status."""
        self.cluster.forget_status()
        self.witness.recreated()
        self.witness.reconcile()

    def delete(self, status: str) -> None:
        """With `deletionPolicy: Off`, and one refused write; then it is created again."""
        if self.cluster.spec.deletion_policy == "Off":
            self.cluster.server.refused_once["document"] = [REFUSALS[status]]
            self.recreate()
            self.cluster.server.refused_once = {}

    # --- faults

    def refuse(self, kind: str, status: str) -> None:
        """Writes of this kind are refused from now on."""
        self.cluster.server.refused[kind] = REFUSALS[status]

    def accept(self) -> None:
        """Every write is accepted again."""
        self.cluster.server.refused, self.cluster.server.unread = {}, False
        self.witness.reconcile()

    def unread(self) -> None:
        """The rollout cannot be read from now on: nobody evaluates it, and the Lease is renewed."""
        self.cluster.server.unread = True
        self.witness.reconcile()

    def lose(self, kind: str) -> None:
        """The next write of this kind is done, and its response is lost."""
        self.cluster.server.lost.add(kind)

    def delay(self, kind: str, *, frozen: bool) -> None:
        """The next write of this kind is late; with `frozen` its process never comes back, and another one leads."""
        self.cluster.server.held[kind] = frozen

    def overtake(self, kinds: str, *, deaf: bool, fails: str) -> None:
        """Another process leads, too, from now on, and comes first at the next writes of these kinds, in this order.

        Then a deaf one has no results; what `fails` the first time are its own writes of this kind.
        """
        cluster, server = self.cluster, self.cluster.server
        if cluster.replica.clock.now() != cluster.time + cluster.offset:
            return
        rival = cluster.rival = cluster.rival or Replica(cluster)
        failures = [{fails: REFUSALS["500"]} if fails else {}]

        async def come_first() -> None:
            refused = server.refused
            rival.metrics.answering, server.refused = not deaf, {**refused, **(failures.pop() if failures else {})}
            await cluster.overtake()
            rival.metrics.answering, server.refused = True, refused

        server.overtaken = [(kind, come_first) for kind in kinds.split()]

    def alone(self) -> None:
        """One process leads."""
        self.cluster.rival, self.cluster.server.overtaken = None, []

    def land(self) -> None:
        """What was late arrives."""
        self.cluster.server.held = {}
        self.cluster.server.land()
        self.witness.reconcile()

    def crash(self, kind: str) -> None:
        """The process ends before its next write of this kind; or it is away for a while, which is known or not."""
        if kind in WRITES:
            self.witness.evidence.account()  # it evaluates before it writes
            self.cluster.crash_before(kind)
            self.witness.reconcile()
            return
        self.cluster.time += timedelta(seconds=90)
        self.witness.evidence.left_alone()
        if kind == "unknown":
            self.cluster.lease = {**(self.cluster.lease or {"spec": {}}), "metadata": {"annotations": {UNACCOUNTED: UNKNOWN}}}
        if kind == "without its Lease":
            self.cluster.lease = None
        self.cluster.take_over()
        if self.cluster.server.refused:
            self.witness.evidence.restart_guards()  # what was decided was never stored
        self.witness.reconcile()


HAPPENINGS: dict[str, Callable[..., None]] = {
    "wait": Life.wait,
    "jump": Life.jump,
    "proceed": Life.proceed,
    "calm": Life.calm,
    "say": Life.say,
    "repeat": Life.repeat,
    "silence": Life.silence,
    "edit": Life.edit,
    "act": Life.act,
    "disable": Life.disable,
    "enable": Life.enable,
    "act again": Life.act_again,
    "act then edit": Life.act_then_edit,
    "act and edit": Life.act_and_edit,
    "say and act": Life.say_and_act,
    "rest": Life.rest,
    "by hand": Life.by_hand,
    "copy": Life.copy,
    "recreate": Life.recreate,
    "restore": Life.restore,
    "delete": Life.delete,
    "refuse": Life.refuse,
    "accept": Life.accept,
    "unread": Life.unread,
    "lose": Life.lose,
    "delay": lambda life, kind, frozen: life.delay(kind, frozen=frozen),
    "overtake": lambda life, kinds, deaf, fails: life.overtake(kinds, deaf=deaf, fails=fails),
    "alone": Life.alone,
    "land": Life.land,
    "crash": Life.crash,
}
