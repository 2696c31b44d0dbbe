"""Short lives of any rollout that the API server accepts: results, actions, edits, ends of Jobs and clock jumps, at the edges.

What the API server, Prometheus, Jobs and sinks may answer is drawn at its boundaries. The queries are read by the operator's
own parser, as the controller does. What must hold of each decision is said where a life is led: see `tests/core/test_generated.py`.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from hypothesis import strategies as st

from api.consistency import accepted, accepted_actions
from core.world import START, World
from session_rollout.adapters.promql import effective_range, largest_range, queries_of
from session_rollout.api.enums import ActionType, CheckReason, Outcome, Verdict
from session_rollout.api.progress import Progress
from session_rollout.api.protection import PROTECTIONS_LENGTH, Protection, ProtectionKind
from session_rollout.api.quantities import duration
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status_records import Refusal
from session_rollout.core.flags import EVERYBODY, NOBODY
from session_rollout.core.observed import Counts, Decision, JobObservation, JobState, Measurement, Observed, Revisions
from session_rollout.records.record import Record
from session_rollout.simulation.rehearsal import RehearsedWorld
from session_rollout.simulation.values import best_value, compared_measurement, measurement_of, rates_of

Object = dict[str, Any]
GENERATIONS: Final = (1, 2**53 - 40)
MOST_STEPS: Final = 16  # that an action may name
LONG_TEXT: Final = "\U0001d54f\n" * 20_000
NUMBERS: Final = tuple(
    Decimal(text)
    for text in ("0.001", "0", "-0", "1", "0.5", "1e300", "-1.7976931348623157e308", "4.9e-324", "0.30000000000000004", "12345678901234567890")
)  # fmt: skip
WANTED: Final = (Verdict.PASS, Verdict.FAIL)
HALF_A_PAIR: Final = "\ud800"  # as a provider may write it in JSON
PROBLEMS: Final = (Verdict.NO_DATA, Verdict.PROVIDER_ERROR, Verdict.INCONCLUSIVE)
COUNTS: Final = tuple(
    (Counts(Decimal(good), Decimal(total))) for good, total in ((50, 50), (0, 0), (0, 100), (10**18, 10**18), (99, 100))
)
ROWS: Final = (0, 1, 2**53, 2**53 - 1)
PROGRESS: Final = tuple(
    Progress(done=done, total=total, rate=rate, remaining_seconds=rows, quarantined=rows, message=message, reason=reason)
    for done, total, rate, rows, message, reason in (
        (None, None, None, 0, "done", None),
        (0, 0, 0, 0, "", "StepFailed"),
        (2**53, 2**53, 2**53, 2**53, LONG_TEXT, "A" * 63),
        (1, 2**53, 1, 2**53, "é", None),
        (2**53, 0, 0, 1, "\x00", "OfAnotherImage"),
    )
)
EFFECTS: Final = (
    "Publish",
    "StartJob",
    "SuspendJob",
    "ReadJob",
    "ReadWorkload",
    "UndoWorkload",
    "RestartWorkload",
    "StartCheck",
    "Answer",
    "Emit",
    "Status",
    "StatusContested",
    "StatusFields",
    "Finalizer",
)
REFUSALS: Final = tuple(
    tuple(
        Refusal(effect=effect, verb=verb, resource="r" * 100, namespace="n" * 63, message=text, since=START, remedy=text)
        for effect in effects
    )
    for effects, verb, text in (((), "", ""), (EFFECTS, "deletecollection", LONG_TEXT), (EFFECTS[-3:], "create", ""), (EFFECTS[:3], "", "x"))
)  # fmt: skip
PROTECTED: Final = ("ours", "all", "others")
FOREIGN: Final = tuple(f"other.{number}".ljust(40, "o") for number in range(360))
RECORDS: Final = 4
TIMES: Final = ("interval", "interval", "interval", "hold", "hold", "1ms", "1d", "365d", "back")

EVENTS: Final = st.one_of(
    st.tuples(st.just("forward"), st.sampled_from((1, 2, 4))),
    st.tuples(st.just("forward"), st.sampled_from((1, 2, 4))),
    st.tuples(st.just("time"), st.sampled_from(TIMES)),
    st.tuples(st.just("time"), st.sampled_from(TIMES)),
    st.tuples(st.just("results"), st.sampled_from((*NUMBERS, *PROBLEMS, None))),
    st.tuples(st.just("results"), st.sampled_from(WANTED)),
    st.tuples(st.just("counts"), st.tuples(st.sampled_from(COUNTS), st.sampled_from(COUNTS))),
    st.tuples(st.just("action"), st.tuples(accepted_actions(), st.booleans())),
    st.tuples(st.just("action"), st.tuples(accepted_actions(), st.booleans())),
    st.tuples(st.just("jobs"), st.tuples(st.sampled_from(list(JobState)), st.sampled_from(PROGRESS), st.booleans())),
    st.tuples(st.just("gates"), st.sampled_from((Verdict.PASS, Verdict.FAIL, Verdict.PROVIDER_ERROR))),
    st.tuples(st.just("workload"), st.sampled_from(("", LONG_TEXT, "no Pods"))),
    st.tuples(st.just("revisions"), st.sampled_from((None, Revisions(10**15 - 1, 1), Revisions(1), Revisions(3, 2, START, LONG_TEXT)))),
    st.tuples(st.just("sinks"), st.sampled_from(("", "410 Gone", LONG_TEXT))),
    st.tuples(st.just("cluster"), st.sampled_from(("refuses", "accepts", "lost", "unreadable", "killed", "more", "newer", "foreign", "ours", "restarted"))),
    st.tuples(st.just("burst"), st.lists(st.tuples(accepted_actions(), st.booleans()), min_size=2, max_size=5)),
    st.tuples(st.just("refusals"), st.sampled_from(REFUSALS)),
    st.tuples(st.just("protected"), st.tuples(st.sampled_from(list(ProtectionKind)), st.sampled_from(PROTECTED), st.integers(-1, 1))),
    st.tuples(st.just("others"), st.sampled_from((0, 1, 40))),
    st.tuples(st.just("edit"), st.sampled_from(("suspend", "continue", "fewer", "reversed", "narrower", "bare"))),
    st.tuples(st.just("another spec"), accepted()),
)  # fmt: skip


@dataclass
class Life(World):
    """The world of one object, and every decision about it."""

    pair: tuple[Counts, Counts] | None = None
    result: Decimal | Verdict | None = Verdict.PASS
    judge: Callable[[Decision], None] = lambda _: None
    made: int = 0
    records: list[Record] = field(default_factory=list)  # of the last decisions
    seen: Observed | None = None

    def observed(self) -> Observed:
        self.seen = super().observed()
        return self.seen

    def measure(self, name: str) -> Measurement | None:
        if self.result is None:
            return None
        if self.result in WANTED:
            return self._wanted(name, Verdict(str(self.result)))
        if isinstance(self.result, Verdict):
            return Measurement(self.now, problem=self.result, reason=CheckReason.EMPTY_RESULT, message=HALF_A_PAIR + LONG_TEXT)
        on, off = self.pair or (None, None)
        return Measurement(self.now, value=self.result, on=on, off=off)

    def _wanted(self, name: str, verdict: Verdict) -> Measurement:
        """A value with which as many checks as possible have this verdict."""
        checks = list(RehearsedWorld._checks_of(self, name))  # type: ignore[arg-type]
        baselines = {
            (record.kind, record.name): Decimal(record.baseline) for record in self.status.checks if record.baseline is not None
        }
        metric = self.spec.metric(name)
        cohorts = metric is not None and metric.cohorts is not None
        if metric is not None and metric.counted is not None:
            percent, harmless, harmful = rates_of(self.spec, self.status, metric)
            rate = harmful if verdict is Verdict.FAIL else harmless
            return compared_measurement(rate, self.now, metric, percent=percent, length=timedelta(seconds=10))
        return measurement_of(best_value(checks, baselines, verdict, cohorts=cohorts), self.now, cohorts=cohorts)

    def adopt(self, spec: RolloutSpec) -> None:
        """A spec, and what the controller finds out about it."""
        self.spec, problems = spec, []
        self.ranges = {}
        for metric in spec.metrics:
            try:
                queries = queries_of(metric)
                self.ranges[metric.name] = max(map(largest_range, queries)) if queries else effective_range(metric)
            except ValueError as error:
                problems.append(f"metrics {metric.name}: {error}")
        self.problems = tuple(problems)

    def step(self) -> None:
        """Two decisions at one moment: the second sees what the first has done."""
        for _ in range(2):
            decision = self.reconcile()
            self.judge(decision)
        assert self.seen is not None
        self.records = [*self.records[-RECORDS:], Record.of(self.seen, self.now, decision)]

    def happen(self, event: tuple[str, Any]) -> None:
        """One event, and the decisions about it."""
        kind, what = event
        ways: dict[str, Callable[[Any], None]] = {
            "forward": self._forward,
            "time": self._time,
            "results": self._results,
            "counts": self._counts,
            "action": self._action,
            "burst": self._burst,
            "refusals": self._refusals,
            "protected": self._protected,
            "others": self._others,
            "jobs": self._jobs,
            "gates": self._gates,
            "workload": self._workload,
            "revisions": self._revisions,
            "sinks": self._sinks,
            "cluster": self._cluster,
            "edit": self._edit,
            "another spec": self._another_spec,
        }
        ways[kind](what)
        self.step()

    # --- events

    def _time(self, which: str) -> None:
        named = {
            "interval": duration(self.spec.check_interval),
            "hold": (self.status.current.hold_until or self.now) - self.now + timedelta(milliseconds=1),
            "back": timedelta(hours=-1),
        }
        self.now += named[which] if which in named else duration(which)

    def _forward(self, rounds: int) -> None:
        """What is waited for comes: Jobs succeed, gates pass, approvals are given, holds end."""
        for _ in range(rounds):
            self._gates(Verdict.PASS)
            self._jobs((JobState.SUCCEEDED, Progress(), False))
            for approval in self.status.decision.approvals:
                self.made += 1
                place = {"generation": self.status.observed_generation, **approval.to_wire()}
                self.request("Approve", f"a{self.made}", uid=f"uid-{self.made}", **place)
            self._time("hold")
            self.step()
            self._time("interval")

    def _results(self, result: Decimal | Verdict | None) -> None:
        self.result = result

    def _counts(self, pair: tuple[Counts, Counts]) -> None:
        self.pair = pair

    def _action(self, drawn: tuple[Object, bool]) -> None:
        self.made += 1
        body, fitting = drawn
        if ActionType(body["spec"]["action"]).is_read_only:
            return  # these run beside the decisions
        wanted = {**body["spec"], **(dict(self._fitting(body["spec"])) if fitting else {})}
        self.request(name=f"a{self.made}", uid=f"uid-{self.made}", **{"reason": "", **wanted, "rollout": self.name})

    def _burst(self, several: list[tuple[Object, bool]]) -> None:
        """Actions that were all created before the operator heard the first."""
        for drawn in several:
            self._action(drawn)

    def _refusals(self, refusals: tuple[Refusal, ...]) -> None:
        self.refusals = refusals

    def _protected(self, drawn: tuple[ProtectionKind, str, int]) -> None:
        """An emergency or a rollback that only the annotation of the document knows."""
        kind, which, newer = drawn
        self.made += 1
        names = tuple(feature.name for feature in self.spec.features)
        self.tamper(
            revision=max(self.status.flags.revision + newer, 0),
            protections=tuple(
                Protection(
                    kind=kind,
                    uid=f"{self.made}-{number}".ljust(63, "u"),
                    time=self.now,
                    revision=max(self.status.flags.revision + newer, 0),
                    by="b" * 63,
                    reason=LONG_TEXT,
                    features={"ours": names, "all": (*names, *FOREIGN), "others": FOREIGN[:1]}[which],
                    phases=tuple(phase.name for phase in self.spec.phases) if which == "ours" else ("z" * 40,),
                    outcome=[None, *Outcome][self.made % 4],
                    guard=self.spec.guards[0].name if self.spec.guards else None,
                    causes=(LONG_TEXT,) * 20,
                )
                for number in range(PROTECTIONS_LENGTH if which == "all" else 1)
            ),
        )

    def _others(self, count: int) -> None:
        self.other_rollouts = dict.fromkeys([feature.name for feature in self.spec.features][:count], "r" * 63)

    def _fitting(self, wanted: Object) -> Iterator[tuple[str, Any]]:
        """What names something names what there is."""
        current, spec = self.status.current, self.spec
        gates = [gate.name for gate in spec.all_gates()]
        there: dict[str, list[Any]] = {
            "generation": [self.status.observed_generation],
            "phase": [current.phase or spec.phases[0].name],
            "step": [min(max(current.step, 1), MOST_STEPS)],  # a status of somebody else may be at step 999
            "check": gates,
            "features": [[feature.name for feature in spec.features]],
            "migration": [migration.name for migration in spec.migrations],
        }
        for name, values in there.items():
            if name in wanted and values:
                yield name, values[self.made % len(values)]

    def _jobs(self, end: tuple[JobState, Progress, bool]) -> None:
        state, progress, suspended = end
        for name, job in self.jobs.items():
            if job.state is JobState.ACTIVE:
                self.jobs[name] = JobObservation(state, progress, suspended)

    def _gates(self, verdict: Verdict) -> None:
        self.gates = {gate.name: verdict for gate in self.spec.all_gates()}

    def _workload(self, unavailable: str) -> None:
        self.workload_unavailable_reason = unavailable or None

    def _revisions(self, revisions: Revisions | None) -> None:
        self.revisions = revisions or Revisions(1)

    def _sinks(self, error: str) -> None:
        self.sink_errors = {notification.sink: error for notification in self.spec.notifications if error}
        if not error:
            self.delivered = {notification.id for notification in self.status.pending_notifications}

    def _cluster(self, how: str) -> None:
        self.publishing = how != "refuses"
        names = tuple(feature.name for feature in self.spec.features)
        match how:
            case "lost":
                self.document = None
            case "unreadable":
                self.tamper("sha256:" + "0" * 64)
            case "killed":
                self.tamper(taken_away=frozenset(names), audiences=dict.fromkeys(names, NOBODY), editor="kubectl-edit")
            case "more":
                self.tamper(
                    audiences=dict.fromkeys((*names, "other"), EVERYBODY), revision=2**53 - 2**20, editor="kubectl-edit"
                )
            case "newer":
                self.tamper(audiences=dict.fromkeys(names, EVERYBODY), revision=2**53 - 2**20)
            case "foreign":
                self.tamper()
                self.document = replace(self.document, owner="other") if self.document else None
            case "ours":
                self.document = replace(self.document, owner=self.name) if self.document else None
            case "restarted":
                self.last_reconcile = None

    def _edit(self, how: str) -> None:
        data = self.spec.to_wire()
        phases = data["phases"]
        match how:
            case "suspend" | "continue":
                data["suspend"] = how == "suspend"
            case "fewer":
                data["phases"] = phases[:-1] or phases
            case "reversed":
                data["phases"] = phases[::-1]
            case "narrower":
                phases[0]["steps"] = phases[0]["steps"][-1:]
            case "bare":
                data |= {"guards": [], "windows": [], "notifications": [], "preflight": []}
        self._another_spec({"spec": data})

    def _another_spec(self, body: Object) -> None:
        self.generation = min(self.generation + 1, 2**53)
        self.adopt(RolloutSpec.model_validate({**body["spec"], "flagSet": self.spec.flag_set}))


MOST_EVENTS: Final = int(os.environ.get("GENERATED_EVENTS", "12"))
LIVES: Final = st.tuples(
    accepted(), st.sampled_from(GENERATIONS), st.lists(EVENTS, min_size=MOST_EVENTS // 2, max_size=MOST_EVENTS)
)


def life(body: Object, generation: int, judge: Callable[[Decision], None], kind: type[Life] = Life) -> Life:
    """A rollout before its first decision."""
    spec = RolloutSpec.model_validate(body["spec"])
    born = kind(spec, name=body["metadata"]["name"], namespace="n" * 63, uid="u" * 36, generation=generation, judge=judge)
    born.revisions = Revisions(1)
    born.adopt(spec)
    return born
