"""The witness: watches the cluster from outside, knows what the world was fed, and objects when a promise is broken.

Nothing here reads the operator's timers, verdicts or records. Who has which feature comes from the document that
applications read; what may happen comes from readings, actions with their responses, and edits.
"""

from core.model.cluster import Broken
from core.model.documents import NOBODY, Given, off_for_all
from core.model.evidence import NOTHING, interval, reach
from core.model.landings import Landings, same
from core.model.server import Object
from core.transitions import TRANSITIONS
from session_rollout.api.checks import OnBreach
from session_rollout.api.enums import DecisionReason, Outcome, Stage
from session_rollout.api.quantities import duration
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.steps import increments, phase_named
from session_rollout.ports import Reconciled


class Witness(Landings):
    """One life's witness."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.cluster.heard.append(self._decided)

    # --- one reconciliation

    def reconcile(self) -> None:
        """The operator reconciles, and the witness looks before, during and after."""
        self._stop()
        self.evidence.account()
        self.cluster.server.failed = set(self.cluster.server.refused)
        try:
            self.cluster.reconcile()
        except Broken as broken:
            if broken.promise in self.heeds:
                raise
        except Exception as error:
            if "raises" in self.heeds:
                raise Broken("raises", f"{type(error).__name__}: {error}") from error
        if self.broken is not None:
            raise self.broken
        if "document" in self.cluster.server.failed and any(self._must_fall(name) for name in self.known):
            self.reasons.add("Decision")
        if "document" in self.cluster.server.failed:
            self._note_earned()
        self.settled()
        self._stop()
        self.evidence.look()
        self.begun = self.begun and self._is_stuck()

    def _note_earned(self) -> None:
        """What is decided now is published when the document can be written, whatever criteria say then."""
        for phase in self.cluster.spec.phases:
            given = self.reached.get(phase.features[0], NOBODY)
            if given.on and self._not_earned(phase, given, last=False) is None:
                self.earned.add(phase.name)

    def _stop(self) -> None:
        spec = self.cluster.spec
        phase = phase_named(spec, self.evidence.phase)
        emergency = bool(phase and set(phase.features) & self._surely_off())
        paused = self.paused and not self._waiting("Resume")  # its response may be late
        self.evidence.stopped = paused or spec.suspend or emergency
        pausing = any(guard.on_breach is OnBreach.PAUSE for guard in self.evidence.lasting(strict=False))
        if pausing and self.cluster.evaluating and not spec.suspend and self._guarded():
            self.paused = True

    def _guarded(self) -> bool:
        """Whether users have something that was not promoted: guards are about that alone."""
        return any(given.on and name not in self.shipped for name, given in self.known.items())

    def _decided(self, result: Reconciled) -> None:
        for before, after in result.decision.transitions:
            if after not in TRANSITIONS[before]:
                self.objects("transition", f"{before} led to {after}")
            if after is Stage.ROLLING_BACK and self._is_off(self.evidence.phase) and self._is_recent():
                # An emergency has just turned its features off: no document shows this rollback, and what the guards measure may be
                # about them. The phase before it follows if the breach lasts.
                self.evidence.restart_guards()

    def _is_off(self, name: str | None) -> bool:
        phase = phase_named(self.cluster.spec, name)
        return phase is not None and set(phase.features) <= self._surely_off() | self._disabling()

    def _is_recent(self) -> bool:
        """Whether guards may measure something from before the document that is published now."""
        spec = self.cluster.spec
        reaches = [reach(spec, guard.metric) for guard in spec.guards]
        return self.cluster.time < self.changed + duration(spec.propagation) + max(reaches, default=NOTHING)

    # --- the world did something

    def _is_stuck(self) -> bool:
        """Whether something that was decided may not have reached the document."""
        return bool(self.cluster.server.failed & {"document", "status"} or self.cluster.server.late)

    def edited(self, spec: RolloutSpec) -> None:
        """Another generation: verdicts and approvals are void, and what was rolled back is tried again if the plan is another one."""
        self._anew()
        if self.fallen and self._planned(spec) != self._planned(self.cluster.spec):
            self.reasons.add("Retry")
            self.fallen = set()

    def _planned(self, spec: RolloutSpec) -> Object:
        other = {"suspend", "bake", "rollback", "windows", "checkInterval", "propagation", "notifications", "deletionPolicy"}
        return {name: value for name, value in spec.to_wire().items() if name not in other}

    def _anew(self) -> None:
        self.begun |= self._is_stuck()
        self.bake_before = duration(self.cluster.spec.bake) if self._is_stuck() else None
        self.owed -= set(self.promotes)
        self.evidence.restart()
        self.evidence.doubt_guards()
        self.approved, self.promotes, self.earned = set(), {}, set()
        self.void |= {raw["metadata"]["uid"] for raw in self._waiting("Abort", "Promote")}

    def recreated(self) -> None:
        """Another object of this name: users still have what they had. What the one before answered last had its effect on that one."""
        self._anew()
        self.void |= {raw["metadata"]["uid"] for raw in self._actions() if raw.get("status") is not None} - self.heard
        self.foreign = True
        if self.fallen:
            self.reasons.add("Retry")
            self.fallen = set()
        self.orphaned = any(given.on or given.emergency for given in self.known.values())
        self.reasons, self.paused, self.promoted, self.shipped = set(), False, False, set()

    def deleted(self) -> None:
        """The object is gone."""
        if any(given.on for given in self.known.values()) and "Delete" in self.reasons:
            self.objects("deletion", f"still on: {[name for name, given in self.known.items() if given.on]}")

    def wrote_by_hand(self, before: dict[str, Given]) -> None:
        """Somebody edited the document: what is taken away whole is an emergency of theirs."""
        self.foreign = True
        self.killed |= {name for name in off_for_all(self.cluster.document) if not before.get(name, NOBODY).emergency}

    # --- after the decision

    def settled(self) -> None:
        """What must be true whenever the operator has come to rest."""
        self._note_met()
        server = self.cluster.server
        if server.invalid:
            self.objects("valid", server.invalid.pop())
            server.invalid.clear()
        fresh = self._hear_answers()
        self._look_at_completion()
        if not server.failed & {"document"} and self.cluster.evaluating:
            self._look_at_emergencies()
            self._look_at_breaches()
        if "status" not in server.failed and self.cluster.evaluating:
            self._look_at_effects(fresh)
            self._look_at_status()
        if "document" not in server.failed:
            self.reasons &= {"Retry"} if not self.landed else set()
        self.landed = False

    def _hear_answers(self) -> set[str]:
        """Responses, each once; the kinds of action that were accepted."""
        fresh = set()
        for raw in self._actions():
            uid, status = raw["metadata"]["uid"], raw.get("status")
            if status is None:
                continue
            first = self.answers.setdefault(uid, status)
            if any(first[field] != status[field] for field in ("accepted", "reason", "message")):
                self.objects("answer", f"{uid} has two answers: {first} and {status}")
            if uid not in self.heard:
                self.heard.add(uid)
                self._hear(uid, raw["spec"], accepted=status["accepted"])
                fresh |= {raw["spec"]["action"]} if status["accepted"] and uid not in self.void else set()
        return fresh

    def _hear(self, uid: str, spec: Object, *, accepted: bool) -> None:
        kind = spec["action"]
        if not accepted:
            if (
                kind == "EmergencyDisable"
                and "features" in spec
                and self._any_on(spec)
                and not self._named_after(uid, "EmergencyEnable")
            ):
                self.objects("emergency-acts", f"{uid} was refused for a feature that is published")
            return
        match kind:
            case "Pause" | "Resume":
                self.paused = kind == "Pause"
                self.promotes = {} if self.paused else self.promotes
                self.begun |= self._is_stuck()
            case "EmergencyDisable":
                self._disabled(uid, spec)
            case "EmergencyEnable":
                self._enabled(uid, spec)
            case "Approve":
                self.approved.add((spec["phase"], spec["step"]))
            case "Promote":
                self._promoted(uid, spec)
            case "Abort" | "Retry" | "Reset" | "Adopt":
                self._moved(kind)

    def _disabled(self, uid: str, spec: Object) -> None:
        self.disabled |= self._named(spec) - self._named_after(uid, "EmergencyEnable")
        if uid not in self.met and self._any_on(spec):
            self.objects("answer", f"{uid} was accepted, and its features were never off")

    def _enabled(self, uid: str, spec: Object) -> None:
        later = self.disabled & self._named_after(uid, "EmergencyDisable")
        self.disabled = self.disabled - self._named(spec) | later if spec.get("features") else later
        self.promotes = {}  # of before an emergency that has ended
        self.killed = self.killed - self._named(spec) if spec.get("features") else set()
        off = self.off | self._dependents(self.killed) | self._disabling()
        if left := [name for name, given in self.known.items() if given.emergency and name not in off]:
            self.objects("answer", f"{uid} was accepted, and {left[0]} is still off")

    def _promoted(self, uid: str, spec: Object) -> None:
        phase = phase_named(self.cluster.spec, spec["phase"])
        last = phase is not None and same(increments(phase)[-1], self.reached.get(phase.features[0], NOBODY))
        if phase is not None and spec["step"] == len(phase.steps) and (last or phase.steps[-1].ramp is None):
            self.complete.add(phase.name)  # but the end of a ramp is held like any audience
        if uid not in self.void:
            self.promotes[uid] = (spec["phase"], spec["step"], 0)
        if uid not in self.spent:
            self.owed.add(uid)

    def _moved(self, kind: str) -> None:
        self.orphaned = self.orphaned and kind not in {"Adopt", "Reset"}
        self.reasons.add(kind)
        self.evidence.restart()
        if kind in {"Retry", "Reset", "Adopt"}:
            self.paused = False
            self.fallen = set()
            self.evidence.restart_guards()

    def _look_at_completion(self) -> None:
        """A phase is complete once its last step was earned; only an edit that gives it another last step takes that away."""
        for phase in self.cluster.spec.phases:
            given = self.reached.get(phase.features[0], NOBODY)
            if phase.name in self.complete and given.on:
                self.completed_at[phase.name] = given
            if given.on and not same(increments(phase)[-1], given):
                self.complete.discard(phase.name)
            elif given.on and self.completed_at.get(phase.name) == given:
                self.complete.add(phase.name)  # an edit has taken back the one before it
            if phase.name == self.evidence.phase and given.on and self._not_earned(phase, given, last=True) is None:
                self.complete.add(phase.name)
        if any(phase.name not in self.complete for phase in self.cluster.spec.phases):
            self.evidence.baked = NOTHING

    def _surely_off(self) -> set[str]:
        """Features in an emergency that nobody is about to lift: what an EmergencyEnable did may be seen before its response."""
        return self.off - {name for raw in self._waiting("EmergencyEnable") for name in self._covers(raw["spec"])}

    def _look_at_emergencies(self) -> None:
        for name in self._surely_off() | (set() if self._waiting("EmergencyEnable") else self._disabling()):
            if self.known.get(name, NOBODY).on and not self.orphaned:
                self.objects("emergency-acts", f"{name} is still on")

    def _look_at_breaches(self) -> None:
        spec = self.cluster.spec
        guards = [guard for guard in self.evidence.lasting(strict=True) if guard.on_breach is OnBreach.ROLLBACK]
        done = self.promoted or self.cluster.status.outcome is Outcome.PROMOTED
        if guards and not (done or spec.suspend or self.orphaned):
            left = [
                name for name, given in self.known.items() if given.on and self._phase_of(name) and name not in self.shipped
            ]
            if left:
                self.objects("breach-acts", f"{left} on with guard {guards[0].name} in breach")

    # --- what the status says

    def _look_at_effects(self, accepted: set[str]) -> None:
        """What was accepted for the first time has happened."""
        status = self.cluster.status
        resumed = "Resume" in accepted or self._resumed()
        if "Pause" in accepted and not resumed and self.cluster.condition("Paused") != "True":
            self.objects("answer", "a Pause was accepted and had no effect")
        ending = status.outcome is Outcome.ABORTED or status.current.rollback_outcome is Outcome.ABORTED
        if "Abort" in accepted and not accepted & {"Retry", "Reset"} and not ending:
            self.objects("answer", "an Abort was accepted and had no effect")
        if "Abort" in accepted and (left := self._not_taken_back()):
            self.objects("answer", f"an Abort was accepted, and {left[0]} is still on")

    def _resumed(self) -> bool:
        """Whether the newest pause was ended since: the response of either may come first."""
        made = {
            kind: [
                raw["metadata"]["creationTimestamp"]
                for raw in self._actions()
                if raw["spec"]["action"] == kind and raw.get("status", {}).get("accepted", True)
            ]
            for kind in ("Pause", "Resume")
        }
        return bool(made["Resume"]) and max(made["Resume"]) >= max(made["Pause"], default="")

    def _look_at_status(self) -> None:
        cluster, status = self.cluster, self.cluster.status
        if not status.observed_generation:
            return  # its first status has not been written
        if status.decision.reason is DecisionReason.NOT_DECIDED or not (status.outcome or status.decision.details):
            self.objects("explained", f"the decision is {status.decision}")
        if status.flags.adoption_required and not self.foreign:
            self.objects("own-document", "it waits for a person")
        if (off := self._surely_off()) and cluster.condition("EmergencyActive") != "True":
            self.objects("emergency-shown", f"{sorted(off)} are off")
        self._look_at_rollback()
        refused = cluster.condition("SpecValid") == "False"  # such an edit makes no phase incomplete
        complete = {*self.complete, *self.completed_at} if refused else self.complete
        over = all(phase.name in complete for phase in cluster.spec.phases) or status.outcome is not None
        over = over or bool(self._waiting("Promote"))  # it may have completed the last phase
        over = over or status.current.stage is Stage.ROLLING_BACK  # criteria do not count in it
        judged = self.evidence.guards_judged() if over else self.evidence.all_judged()
        if cluster.condition("EvidenceAvailable") == "True" and self.evidence.exposed and not judged:
            self.objects("evidence", "a check has no value")
        self._look_at_deadline()
        self._look_at_promotes()
        if self._is_ready():
            self._look_at_ready()
        self.promoted = self._is_ready()

    def _not_taken_back(self) -> list[str]:
        """Features that users have, of phases that a running rollback has turned off in the status."""
        status = self.cluster.status
        back = [
            record for record in status.phases if record.state == "RolledBack" and record.percent == "0" and not record.groups
        ]
        names = [name for record in back for name in record.features] if status.current.stage is Stage.ROLLING_BACK else []
        return [name for name in names if self.known.get(name, NOBODY).on]

    def _look_at_rollback(self) -> None:
        """The decision that begins a rollback writes the document before the status; from the next one on, the status says what is left."""
        left, status = self._not_taken_back(), self.cluster.status
        uid = status.current.rollback_uid if left else None
        shown = any(each.type == "RolledBack" and each.reason == "NotInForce" for each in status.conditions)
        if uid is not None and uid == self.refused and not shown:
            self.objects("rollback-shown", f"{left[0]} is still on")
        self.refused = uid

    def _is_ready(self) -> bool:
        """Whether the status says so about the spec as it is."""
        raw, status = self.cluster.raw, self.cluster.status
        current = raw is not None and status.observed_generation == raw["metadata"]["generation"]
        return current and self.cluster.condition("Ready") == "True"

    def _look_at_deadline(self) -> None:
        phase = phase_named(self.cluster.spec, self.evidence.phase)
        if phase is None or phase.name in self.complete or not self.known.get(phase.features[0], NOBODY).on:
            return
        evidence, hold = self.evidence, self._hold(phase, phase.features[0])
        begins = evidence.counting and evidence.held() < hold + 2 * interval(self.cluster.spec)  # with evidence that is back
        excused = evidence.all_passing() or evidence.provider_fails() or evidence.stopped or self.paused or begins
        excused = excused or bool(self._waiting("Pause"))
        if evidence.deadline(phase, hold, strict=True) and not excused and self.cluster.condition("Stalled") != "True":
            self.objects("deadline", f"phase {phase.name} has waited for {evidence.waited}")

    def _look_at_promotes(self) -> None:
        """What was accepted happens, unless a pause or an emergency has come first: whoever promoted did not know of it."""
        if self.cluster.condition("Paused") == "True":
            self.promotes = {}
        stalled = self.cluster.condition("Stalled") == "True"
        failing = self.evidence.breached() or not self.evidence.all_guards_passing()
        calm = not (stalled or self.evidence.stopped or failing or self.killed or self.cluster.server.refused)
        for uid, (phase, step, looks) in list(self.promotes.items()):
            current, spec = self.cluster.status.current, phase_named(self.cluster.spec, phase)
            ramp = spec.steps[step - 1].ramp if spec is not None and step <= len(spec.steps) else None
            at_end = ramp is not None and current.increment == ramp.increments
            if (current.stage, current.phase, current.step) != ("Step", phase, step) or at_end:
                del self.promotes[uid]
            elif calm:
                self.promotes[uid] = (phase, step, looks + 1)
                if looks:
                    self.objects("answer", f"{uid} was accepted, and step {step} of phase {phase} is still running")

    def _look_at_ready(self) -> None:
        spec = self.cluster.spec
        for phase in spec.phases:
            last = increments(phase)[-1]
            for name in phase.features:
                given = self.reached.get(name, NOBODY)
                if not same(last, given):
                    self.objects("ready", f"{name} is at {given.percent}%, and the spec says {last.percent}%")
        wanted = {feature.name for feature in spec.features}
        if extra := [name for name, given in self.known.items() if given.on and name not in wanted]:
            self.objects("ready", f"{extra[0]} is on, and not in the spec")
        if not self.promoted:
            self._look_at_promotion()
        self.shipped |= {name for name, given in self.known.items() if given.on}

    def _look_at_promotion(self) -> None:
        if lasting := [guard for guard in self.evidence.lasting(strict=True) if guard.on_breach is OnBreach.ROLLBACK]:
            self.objects("breach-acts", f"promoted with guard {lasting[0].name} in breach")
        for phase in self.cluster.spec.phases:
            if phase.name not in self.complete and not self._waiting("Promote"):
                self._object_unless_earned(phase, self.reached.get(phase.features[0], NOBODY), last=True)
        bake = duration(self.cluster.spec.bake)
        if self.evidence.baked < (bake if self.bake_before is None else min(bake, self.bake_before)):
            self.objects("bake", f"{self.evidence.baked} of {self.cluster.spec.bake} were judged")
