"""Gates of every kind and read-only actions: real Services, Jobs, a real Prometheus with real alert rules.

Not here: the rules of gates (tests/core), the commands (tests/cli).
"""

from integration.receivers import service
from integration.rollouts import LONG, answer, decided, holding, rollout
from lab.kube import Object
from lab.lab import Lab


def port(lab: Lab) -> int:
    """Of the Service."""
    return int(lab.gauge.server_port)  # type: ignore[attr-defined]


def check(lab: Lab, name: str, title: str) -> Object:
    """Record of a check."""
    found = [one for one in lab.rollout(name).get("status", {}).get("checks", []) if one["name"] == title]
    return dict(found[0]) if found else {}


def test_preflight_of_every_kind(configured_operator: Lab) -> None:
    """It waits for each with a sentence, and goes on when all pass."""
    kinds = ("FlagStore", "Migrations", "Metrics", "Alerts", "Rollback", "Cache")
    gates: list[Object] = [
        {"name": "metric", "metric": "errors", "below": "1%"},
        {"name": "http", "http": {"service": "gauge", "port": port(configured_operator), "path": "/health"}},
        {"name": "gone", "http": {"service": "gone"}},
        {"name": "smoke", "job": {"profile": "green"}},
        *({"name": kind.lower(), "builtin": kind} for kind in kinds),
    ]
    configured_operator.apply(rollout("gates", LONG, preflight=gates))
    configured_operator.until(
        lambda: check(configured_operator, "gates", "gone").get("reason") == "CheckFailed", 30, "no Service of this name"
    )
    assert "phase" not in decided(configured_operator, "gates", "AwaitingGates")["current"]
    others = [gate["name"] for gate in gates if gate["name"] != "gone"]
    passed = lambda: all(check(configured_operator, "gates", name).get("verdict") == "Pass" for name in others)  # noqa: E731
    configured_operator.until(passed, 30, "all others passing")
    assert check(configured_operator, "gates", "gone")["verdict"] == "Fail"
    configured_operator.apply(service("gone", 80))
    configured_operator.until(
        lambda: check(configured_operator, "gates", "gone")["reason"] == "ConnectionFailed", 20, "a Service without Pods"
    )
    configured_operator.apply(rollout("gates", LONG, preflight=gates[:2] + gates[3:]))
    holding(configured_operator, "gates")


def test_check_of_an_unknown_profile_is_a_mistake_in_the_spec(configured_operator: Lab) -> None:
    """Written once, not at every reconciliation."""
    configured_operator.apply(rollout("unknown-check", LONG, preflight=[{"name": "smoke", "job": {"profile": "blue"}}]))
    decided(configured_operator, "unknown-check", "InvalidSpec")
    version = configured_operator.rollout("unknown-check")["metadata"]["resourceVersion"]
    configured_operator.reconciles("unknown-check", 5)
    assert configured_operator.rollout("unknown-check")["metadata"]["resourceVersion"] == version


def test_failed_job_of_a_check_says_its_last_line_and_runs_again_by_retry(configured_operator: Lab) -> None:
    """The Pod's own words are in the check's message."""
    configured_operator.apply(rollout("red", LONG, preflight=[{"name": "smoke", "job": {"profile": "red"}}]))
    configured_operator.until(
        lambda: check(configured_operator, "red", "smoke").get("reason") == "JobFailed", 30, "the failed Job"
    )
    assert "3 of 40 tests failed" in check(configured_operator, "red", "smoke")["message"]
    status = configured_operator.rollout("red")["status"]
    first = check(configured_operator, "red", "smoke")["job"]
    pod = configured_operator.kube.get(f"/apis/batch/v1/namespaces/default/jobs/{first}")["spec"]["template"]["spec"]
    confined = {"runAsNonRoot": True, "runAsUser": 20001, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["securityContext"] == confined, "the configuration says under which uid"
    configured_operator.act("Retry", "red", generation=status["observedGeneration"])
    configured_operator.until(
        lambda: check(configured_operator, "red", "smoke").get("job") not in {first, None}, 20, "another Job"
    )


def test_verify_on_demand_answers_in_its_own_status(configured_operator: Lab) -> None:
    """Every gate once, while the rollout is suspended; one by name; an unknown name gets the allowed ones."""
    gates = [
        {"name": "http", "http": {"service": "gauge", "port": port(configured_operator), "path": "/health"}},
        {"name": "teapot", "http": {"service": "gauge", "port": port(configured_operator), "expectStatus": 418}},
        {"name": "smoke", "job": {"profile": "red"}},
        {"name": "calm", "metric": "errors", "below": "1%"},
        {"name": "full", "builtin": "Capacity"},
    ]
    signed = [{"name": "signed", "approval": {}}]
    configured_operator.apply(rollout("verify", LONG, preflight=signed, rollback={"verification": gates}, suspend=True))
    seen = answer(configured_operator, configured_operator.act("Verify", "verify"))
    results = {one["name"]: one for one in seen["results"]}
    verdicts = {"http": "Pass", "teapot": "Fail", "smoke": "Fail", "calm": "Pass", "full": "Fail", "signed": "NotEvaluated"}
    assert {title: one["verdict"] for title, one in results.items()} == verdicts
    assert (results["teapot"]["value"], results["teapot"]["bound"]) == ("200", "418")
    assert "3 of 40 tests failed" in results["smoke"]["message"], "the Pod's own words"
    assert "make room" in results["full"]["message"], "the advice of the configuration"
    one = answer(configured_operator, configured_operator.act("Verify", "verify", check="http"))
    assert [result["name"] for result in one["results"]] == ["http"]
    unknown = answer(configured_operator, configured_operator.act("Verify", "verify", check="nothing"))
    assert (unknown["accepted"], unknown["reason"]) == (False, "UnknownCheck")


def test_diagnose_asks_what_the_admin_wrote(configured_operator: Lab) -> None:
    """A topic's answers with value, bound and advice; an unknown topic gets the allowed ones."""
    configured_operator.apply(rollout("diagnose", LONG))
    done = answer(configured_operator, configured_operator.act("Diagnose", "diagnose", topic="errors"))
    assert done["accepted"], done["message"]
    [result] = done["results"]
    assert (result["name"], result["verdict"], result["bound"]) == ("error-rate", "Pass", "below 1%")
    unknown = answer(configured_operator, configured_operator.act("Diagnose", "diagnose", topic="weather"))
    assert unknown["reason"] == "UnknownTopic"
    missing = answer(configured_operator, configured_operator.act("Diagnose", "nobody", topic="errors"))
    assert missing["reason"] == "UnknownRollout"
