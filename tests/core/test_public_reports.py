"""Public bug reports of Argo Rollouts about failed measurements that ended as a success, told to this rollout.

Each test is named after the number of its report in github.com/argoproj/argo-rollouts and has its measurements, times and
limits as far as the report gives them. `failureLimit: 2` with `count: 5` is a guard with `outOf: 3/5`; a criterion has no limit
of failures, but must pass. Not here: the rules by themselves (test_failures, test_hold, test_guards, test_gates).
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.world import World, at, edited, ended
from session_rollout.api.enums import CheckKind, CheckReason, DecisionReason, EventReason, Outcome, Stage, Verdict
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.observed import Measurement

Result = Decimal | Verdict | None  # None: the query has not been answered
GOOD, BAD = Decimal("0.001"), Decimal("0.08")


def planned(steps: list[dict[str, Any]], *, criteria: Any = (), guards: Any = (), **changes: Any) -> RolloutSpec:
    """A rollout with these steps, then 100 %, of its one phase."""

    def change(data: dict[str, Any]) -> None:
        phase = {"name": "one", "features": ["alpha", "beta", "gamma"], "steps": [*steps, {"percent": 100, "hold": "60s"}]}
        data["phases"] = [{**phase, "criteria": list(criteria)}]

    return edited(change, guards=list(guards), **changes)


@dataclass
class Reported(World):
    """A world in which a query may also stay unanswered."""

    unanswered: set[str] = field(default_factory=set)

    def measure(self, name: str) -> Measurement | None:
        return None if name in self.unanswered else super().measure(name)

    def feed(self, results: Iterable[Result], metric: str = "errors", tick: float = 10) -> None:
        """One result after the other, at one interval each."""
        for result in results:
            self.unanswered = {metric} if result is None else set()
            if result is not None:
                self.values[metric] = result
            self.now += timedelta(seconds=tick)
            self.settle()


def published_steps(world: World) -> set[tuple[int | None, str | None]]:
    """Step and percentage of every audience that was read back."""
    return {(entry.step, entry.percent) for entry in world.entries(EventReason.STEP_PUBLISHED)}


# --- 4479

ERRORS = ("errored as ProviderError", Verdict.PROVIDER_ERROR), ("errored as NoData", Verdict.NO_DATA)
FEW_CPUS = {"name": "errors", "metric": "errors", "below": "0.02"}  # successCondition: result < 0.02


def interrupted_analysis(error: Verdict) -> list[list[Result]]:
    """Three errored measurements and a failed one, in every order."""
    measurements: list[Result] = [error, error, error, BAD]
    return [list(order) for order in dict.fromkeys(itertools.permutations(measurements))]


@pytest.mark.parametrize("error", [error for _, error in ERRORS], ids=[name for name, _ in ERRORS])
def test_argo_rollouts_4479_errored_and_failed_measurements_promote_nothing(error: Verdict) -> None:
    """4479: an analysis that was terminated after three errored measurements and a failed one, of five, was Successful."""
    steps, limit = [{"percent": 10, "hold": "150s"}], {"outOf": "3/5"}  # interval 30 s, count 5, failureLimit 2
    for results in interrupted_analysis(error):
        plan = planned(steps, criteria=[FEW_CPUS], guards=[{**FEW_CPUS, **limit}], checkInterval="30s")
        world = Reported(plan)
        world.until(at("one", 1), tick=30)
        world.feed(results, tick=30)
        record = world.check(CheckKind.CRITERION, "errors")
        assert record.verdict is (Verdict.FAIL if results[-1] == BAD else error)
        world.feed(results * 2, tick=30)  # far beyond the count: nothing that failed or errored becomes a pass
        assert published_steps(world) == {(1, "10")}
        assert world.status.outcome is not Outcome.PROMOTED


def test_argo_rollouts_4479_nothing_but_errors_waits() -> None:
    """4479: the same without the failed measurement: neither promoted nor rolled back, and status says why."""
    world = Reported(planned([{"percent": 10, "hold": "150s"}], criteria=[FEW_CPUS], checkInterval="30s"))
    world.until(at("one", 1), tick=30)
    world.feed([Verdict.PROVIDER_ERROR] * 60, tick=30)
    assert (world.where[:2], world.status.outcome) == (("one", 1), None)
    assert (world.reason, world.condition("EvidenceAvailable")) == (DecisionReason.AWAITING_EVIDENCE, "False")


# --- 2026


@pytest.mark.parametrize(("count", "failure_limit"), [(3, 1), (5, 2), (5, 4), (10, 9)])
@pytest.mark.parametrize("check", ["criterion", "guard"])
def test_argo_rollouts_2026_failed_measurements_only(count: int, failure_limit: int, check: str) -> None:
    """2026: every measurement failed, more of them than `failureLimit`, and the run was Successful; no numbers are given."""
    rule = {"name": "errors", "metric": "errors", "below": "1%"}
    guards = [{**rule, "outOf": f"{failure_limit + 1}/{count}"}] if check == "guard" else []
    criteria = [rule] if check == "criterion" else []
    world = Reported(planned([{"percent": 10, "hold": f"{count * 10}s"}], criteria=criteria, guards=guards))
    world.until(at("one", 1))
    world.feed([BAD] * failure_limit)
    assert world.status.outcome is None
    world.feed([BAD] * (count - failure_limit))
    assert world.status.outcome is (Outcome.ROLLED_BACK if check == "guard" else None)
    world.feed([BAD] * 3 * count)
    assert published_steps(world) == {(1, "10")}
    assert world.percents()["one"] == ("0" if check == "guard" else "10")
    assert check == "guard" or world.reason is DecisionReason.CRITERIA_NOT_MET


# --- 2158


def test_argo_rollouts_2158_a_job_that_was_not_awaited_is_no_success() -> None:
    """2158: a web check failed at its first result, and the Job next to it, which would have failed, was marked Successful."""
    gates = [{"name": "sleep-and-fail", "job": {"profile": "smoke-tests"}}, {"name": "web", "http": {"service": "web"}}]

    @dataclass
    class Sleeping(World):
        """The Job runs for ten seconds."""

        def advance_jobs(self) -> None:
            start = self.status.current.stage_start_time
            if start is not None and self.now - start >= timedelta(seconds=10):
                super().advance_jobs()

    world = Sleeping(edited(lambda data: data["phases"][0].update(verification=gates)), jobs_succeed=False)
    world.gates["web"] = Verdict.FAIL
    world.until(lambda world: world.status.current.stage is Stage.VERIFICATION)
    job = world.check(CheckKind.VERIFICATION, "sleep-and-fail")
    assert (job.verdict, job.reason) == (Verdict.NOT_EVALUATED, CheckReason.JOB_RUNNING)
    world.run(60)
    job = world.check(CheckKind.VERIFICATION, "sleep-and-fail")
    assert (job.verdict, job.reason) == (Verdict.FAIL, CheckReason.JOB_FAILED)
    world.gates["web"] = Verdict.PASS
    world.run(600)
    assert (world.status.current.stage, world.reason) == (Stage.VERIFICATION, DecisionReason.AWAITING_GATES)


@pytest.mark.parametrize("other", [None, Verdict.NO_DATA, BAD], ids=["unanswered", "no data", "failing"])
def test_argo_rollouts_2158_no_verdict_is_made_up_when_another_check_ends_the_analysis(other: Result) -> None:
    """2158: one of two metrics failed; the other one, stopped because of that, was shown as successful."""
    guard = {"name": "web", "metric": "errors", "below": "1%"}  # failureLimit 0
    criterion = {"name": "slow", "metric": "load", "below": "0.05"}
    world = Reported(planned([{"percent": 10, "hold": "60s"}], criteria=[criterion], guards=[guard]))
    world.values["load"] = Verdict.NO_DATA
    world.until(at("one", 1))
    world.feed([other], metric="load")
    world.values["errors"] = BAD
    world.feed([other] * 12, metric="load")
    assert world.status.outcome is Outcome.ROLLED_BACK
    assert Verdict.PASS not in {record.verdict for record in world.status.checks}
    assert published_steps(world) == {(1, "10")}


# --- 943

TWO_OF_FIVE = sorted(set(itertools.permutations([GOOD, GOOD, BAD, BAD, BAD])))


def experiment(*, criterion: bool) -> Reported:
    """90 s, of which the first 50 are the warm-up; a result every 10 s; two failures are tolerated."""
    rule = {"name": "errors", "metric": "errors", "below": "1%"}
    checks = {"criteria": [rule]} if criterion else {"guards": [{**rule, "outOf": "3/5"}]}
    world = Reported(planned([{"percent": 10, "hold": "40s"}], **checks), ranges={"errors": timedelta(seconds=50)})
    world.until(at("one", 1))
    world.feed([GOOD] * 4)
    assert world.status.current.hold_until is None
    return world


@pytest.mark.parametrize("results", TWO_OF_FIVE, ids=lambda results: "".join("FP"[result == GOOD] for result in results))
def test_argo_rollouts_943_the_failure_at_the_end_of_the_time_counts(results: tuple[Decimal, ...]) -> None:
    """943: two successes and three failures, `failureLimit: 2`; the experiment ended with the last one and was Successful."""
    world = experiment(criterion=False)
    world.feed(results)
    assert world.status.outcome is Outcome.ROLLED_BACK
    assert (world.percents()["one"], published_steps(world)) == ("0", {(1, "10")})


@pytest.mark.parametrize("criterion", [False, True], ids=["guard", "criterion"])
def test_argo_rollouts_943_nothing_ends_while_the_last_measurement_runs(*, criterion: bool) -> None:
    """943: the time of the experiment was over while its analysis, which then failed, was still running."""
    world = experiment(criterion=criterion)
    world.feed([BAD, BAD, GOOD, GOOD, None, None, None])
    assert (world.where[:2], world.status.outcome) == (("one", 1), None)
    world.feed([BAD])
    assert world.status.outcome is (None if criterion else Outcome.ROLLED_BACK)
    assert published_steps(world) == {(1, "10")}


# --- 1411

ROUTER_STEPS = [
    {"percent": 1, "hold": "600s"},
    {"percent": 10, "hold": "600s"},
    {"percent": 30, "hold": "600s"},
    {"percent": 60, "hold": "900s"},
]
ROUTER_GUARDS = [
    {"name": "router-error-rate", "metric": "errors", "below": "1%", "outOf": "3/10"},  # failureLimit 2
    {"name": "load", "metric": "load", "below": "5"},
]
OTHERS = {"answered": Decimal("1.0"), "unanswered": None, "no data": Verdict.NO_DATA, "away": Verdict.PROVIDER_ERROR}


@pytest.mark.parametrize("step", [1, 2, 3, 4])
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_argo_rollouts_1411_a_failed_metric_does_not_wait_for_another_one(step: int, other: Result) -> None:
    """1411: "failed (3) > failureLimit (2)" did not abort while another metric had not completed (#1535): all was rolled out."""
    world = Reported(planned(ROUTER_STEPS, guards=ROUTER_GUARDS))
    world.until(at("one", step), seconds=7200)
    world.unanswered = {"load"} if other is None else set()
    world.values["load"] = GOOD if other is None else other
    for result in (BAD, BAD, BAD):
        assert world.status.outcome is None
        world.values["errors"] = result
        world.now += timedelta(seconds=10)
        world.settle()
    assert (world.status.outcome, world.percents()["one"]) == (Outcome.ROLLED_BACK, "0")
    assert world.status.current.rollback_guard == "router-error-rate"


def test_argo_rollouts_1411_a_later_success_does_not_undo_the_failure() -> None:
    """1411: after the spike the same metric was assessed again, as a success, and the rollout completed."""
    world = Reported(planned(ROUTER_STEPS, guards=ROUTER_GUARDS))
    world.until(at("one", 2), seconds=7200)
    world.feed([BAD, BAD, BAD, Verdict.NO_DATA, Verdict.NO_DATA])
    assert ended(world)
    world.feed([GOOD] * 360)
    assert (world.status.outcome, world.percents()["one"]) == (Outcome.ROLLED_BACK, "0")
    assert world.condition("Stalled") == "True"
