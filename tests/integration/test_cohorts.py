"""Users with a feature are compared with those without it, by the real operator process and from a real Prometheus.

The application serves whom the published flag document says: what it counts as harm is what real users would have had. All
rollouts run side by side, because each waits for its blocks of five seconds. Not here: every rule of the evidence
(tests/core/test_control.py), what a block has (test_blocks.py).
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from integration.rollouts import events
from lab.comparison import BLOCK_SECONDS, check, compared, evidence, of_everybody, value
from lab.counting import Application, Traffic, counting
from lab.kube import Object
from lab.lab import Lab, percent_of

BLOCK = timedelta(seconds=BLOCK_SECONDS)
USUAL, MANY = 167 / BLOCK_SECONDS, 20_000.0  # sessions in a second
BASE = 0.005  # the share of them that fails without the feature
HARMED = {  # the name, percent of users, percentage points of harm
    "a-fifth-harmed": (20, 0.15),
    "a-twentieth-broken": (5, 0.5),
}
MOST_HARMED_SESSIONS = 60
EVERYBODY = {"below": "5%"}  # the guard on the share of failures of all users

ROLLOUTS = {
    "harmless": (
        Traffic(MANY, BASE),
        [{"percent": 20, "hold": "1s"}, {"percent": 50, "hold": "1s"}, {"percent": 100, "hold": "1s"}],
    ),
    **{name: (Traffic(USUAL, BASE, harm), [{"percent": percent, "hold": "1h"}]) for name, (percent, harm) in HARMED.items()},
    "not-wired": (Traffic(MANY, BASE), [{"percent": 20, "hold": "1s"}, {"percent": 50, "hold": "1h"}]),
    "interrupted": (Traffic(USUAL, BASE), [{"percent": 20, "hold": "1h"}]),
}


@pytest.fixture(scope="module")
def applications(operator: Lab) -> Iterator[dict[str, Application]]:
    """Those of all rollouts, by name, once their rollouts are applied."""
    running = {name: Application(operator, name, traffic, wired=name != "not-wired") for name, (traffic, _) in ROLLOUTS.items()}
    with counting(operator, *running.values()):
        for name, (_, steps) in ROLLOUTS.items():
            operator.until(lambda name=name: value(operator, f'sum(sessions_total{{job="{name}"}})'), 15, f"traffic of {name}")
            operator.apply(compared(name, steps, EVERYBODY))
        yield running
        operator.kubectl("delete", "sro", *ROLLOUTS, "--timeout=60s")


def status_of(lab: Lab, name: str) -> Object:
    """The status of a rollout; empty before the first."""
    return dict(lab.rollout(name).get("status", {}))


def test_harmless_feature_is_promoted_on_evidence(operator: Lab, applications: dict[str, Application]) -> None:
    """To the end, in a minute, and nobody is alarmed."""
    for kind in ("Criterion", "Guard"):
        operator.until(lambda kind=kind: evidence(status_of(operator, "harmless"), kind), 30, f"blocks of the {kind}")
    operator.until(lambda: status_of(operator, "harmless").get("outcome") == "Promoted", 80, "the promotion")
    assert percent_of(operator.document("harmless"), "alpha") == 100
    assert applications["harmless"].failed_with_feature > MOST_HARMED_SESSIONS, (
        "a difference ends a rollout, and no number of failures"
    )
    assert not {"GuardBreached", "RollbackStarted", "Paused"} & set(events(operator, "harmless"))
    assert status_of(operator, "harmless").get("evidence", []) == []


@pytest.mark.parametrize("name", HARMED)
def test_harm_ends_before_everybody_could_see_it(operator: Lab, applications: dict[str, Application], name: str) -> None:
    """A few sessions show it. The share of failures of all users stays far from its bound."""
    operator.until(lambda: status_of(operator, name).get("outcome") == "RolledBack", 60, "a rollback")
    operator.until(lambda: applications[name].share == 0, 10, "users without the feature")
    status = status_of(operator, name)
    assert check(status, "Guard")["reason"] == "HarmShown"
    assert check(status, "Guard", "of-everybody")["verdict"] == "Pass"
    assert 0 < applications[name].failed_with_feature <= MOST_HARMED_SESSIONS
    assert 0 < value(operator, f"max_over_time(({of_everybody(name)})[10m:1s])") < 0.05


def test_nothing_is_promoted_until_the_application_counts_by_variant(
    operator: Lab, applications: dict[str, Application]
) -> None:
    """The status says what is missing; once it is there, the rollout goes on."""

    def waits() -> bool:
        status = status_of(operator, "not-wired")
        reasons = [check(status, kind).get("reason") for kind in ("Criterion", "Guard")]
        return reasons == ["NoVariants", "NoVariants"] and status["decision"]["reason"] == "AwaitingEvidence"

    operator.until(waits, 40, "no variants")
    operator.reconciles("not-wired", 3)
    assert waits()
    assert percent_of(operator.document("not-wired"), "alpha") == 20
    assert evidence(status_of(operator, "not-wired")) == {}
    applications["not-wired"].deploy(wired=True)
    operator.published("not-wired", lambda document: percent_of(document, "alpha") == 50, 60, "alpha for 50 %")


def test_killed_operator_continues_its_evidence(operator: Lab, applications: dict[str, Application]) -> None:
    """The next process reads the blocks since the last one in the status, and comes to a verdict with those of both: none is lost or counts twice."""
    before = operator.until(lambda: evidence(status_of(operator, "interrupted")), 40, "blocks")
    assert status_of(operator, "interrupted")["current"]["holdUntil"]
    assert operator.operator is not None
    operator.operator.kill()
    operator.start_operator()
    operator.reconciles("interrupted", 2)
    assert evidence(status_of(operator, "interrupted"))["blocks"] >= before["blocks"]
    applications["interrupted"].traffic = Traffic(MANY, BASE)  # which soon shows that there is no harm
    shown = lambda: check(status_of(operator, "interrupted"), "Guard").get("reason") == "HarmlessnessShown"  # noqa: E731
    operator.until(shown, 40, "a verdict")
    after = evidence(status_of(operator, "interrupted"))
    assert after["alpha"] == before["alpha"]
    assert after["blocks"] > before["blocks"]
    assert (after["blocks"] - before["blocks"]) * BLOCK == at(after) - at(before)


def at(record: Object) -> datetime:
    """The end of its last block."""
    return datetime.fromisoformat(record["until"])
