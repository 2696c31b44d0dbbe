"""Commands that steer a rollout: what they create, what they refuse, and how waiting for a rollout ends.

Not here: what the operator makes of an action (tests/core, tests/integration).
"""

from cli.plugin import SHOP, actions, begin, data, fine, refused, run, shop, status
from integration.rollouts import holding
from lab.kube import Object
from lab.lab import Lab
from session_rollout.cli.command import Exit


def last(lab: Lab, name: str) -> Object:
    """The newest action on a rollout."""
    return actions(lab, name)[-1]


def test_pause_and_resume(operator: Lab) -> None:
    """`wait` sees both; an action has the reason that was given."""
    fine(operator, "pause", SHOP, "-r", "lunch")
    assert (last(operator, SHOP)["action"], last(operator, SHOP)["reason"]) == ("Pause", "lunch")
    fine(operator, "wait", SHOP, "--for", "Paused", "--timeout", "20s")
    fine(operator, "resume", SHOP)
    fine(operator, "wait", SHOP, "--for", "Progressing", "--timeout", "20s")


def test_approval_of_a_step_that_needs_none_creates_nothing(operator: Lab) -> None:
    """Refused by the plugin."""
    refused(operator, "approve", SHOP)


def test_promote_needs_a_confirmation(operator: Lab) -> None:
    """Without a terminal it cannot prompt."""
    refused(operator, "promote", SHOP, "-r", "short day", code=Exit.USAGE)


def test_reset_needs_a_confirmation(operator: Lab) -> None:
    """D6: it takes from users what they have; what that is comes before the question."""
    done = refused(operator, "reset", SHOP, "-r", "another rollout", code=Exit.USAGE)
    assert "alpha: 10%+staff" in done.err


def test_promote_full_leaves_all_steps_of_the_phase(operator: Lab) -> None:
    """One action for each step, in order; the next phase starts with its first step."""
    name = "full"
    begin(operator, name)
    fine(operator, "promote", name, "--full", "-y", "-r", "canary was enough", "--timeout", "1m")
    made = [(spec["phase"], spec["step"], spec["reason"]) for spec in actions(operator, name)]
    assert made == [("one", step, "canary was enough") for step in (1, 2, 3)]
    operator.until(lambda: status(operator, name)["current"].get("phase") == "two", 30, "the second phase")
    assert status(operator, name)["phases"][0]["state"] == "Completed"
    fine(operator, "abort", name, "-y", "-r", "over")


def test_life_of_a_rollout(operator: Lab) -> None:
    """Steps by hand, an approval, an emergency, a restart, a rollback, a migration undone, and what is refused meanwhile."""
    name = "shift"
    begin(operator, name)
    fine(operator, "flags", "enable", "alpha", "--group", "staff", "--in", name)
    assert actions(operator, name) == []  # the group has it already
    refused(operator, "flags", "rollout", "alpha", "--percentage=100", "--in", name)
    refused(operator, "flags", "rollout", "alpha", "--percentage=50", "-y", "--in", name, code=Exit.USAGE)  # no reason
    fine(operator, "flags", "rollout", "alpha", "--percentage=50", "-y", "-r", "looks good", "--in", name)
    assert (last(operator, name)["action"], last(operator, name)["step"]) == ("Promote", 1)
    operator.until(lambda: status(operator, name)["current"].get("publishedTime"), 10, "the second step")
    refused(operator, "flags", "enable", "beta", "--group", "staff", "--in", name)
    refused(operator, "approve", name)  # its hold takes an hour: nothing waits for approval
    operator.until(lambda: status(operator, name)["current"].get("holdUntil"), 10, "the hold of the second step")
    early = operator.act("Approve", name, generation=1, phase="one", step=2)
    operator.until(lambda: status(operator, name)["current"].get("approvedBy") == early, 10, "the approval")
    emergency(operator, name)
    fine(operator, "restart", name, "-y", "-r", "memory")
    operator.until(lambda: status(operator, name)["workload"].get("restartedTime"), 20, "the restart")
    fine(operator, "abort", name, "-y", "-r", "errors")
    assert run(operator, "wait", name, "--timeout", "30s").code == Exit.REFUSED
    assert status(operator, name)["outcome"] == "Aborted"
    fine(operator, "migrations", "down", "--in", name, "-y", "-r", "not needed")
    operator.until(lambda: status(operator, name)["migrations"][0]["state"] == "Reverted", 30, "the reverted migration")
    refused(operator, "pause", name)
    fine(operator, "retry", name)
    fine(operator, "rollback", name, "-y", "-r", "enough")


def emergency(operator: Lab, name: str) -> None:
    """Off with what depends on it, and on again."""
    refused(operator, "flags", "emergency-disable", "alhpa", "-r", "EU", "--in", name, code=Exit.USAGE)
    partly = run(operator, "flags", "emergency-disable", "alpha", "alhpa", "-r", "EU", "--in", name)
    assert (partly.code, "alhpa is not a feature" in partly.out) == (Exit.REFUSED, True), partly
    assert last(operator, name)["features"] == ["alpha", "alhpa"]
    rows = data(operator, "flags", "who", "u", "--group", "staff", "--in", name)
    assert {(row["feature"], row["on"], row["rule"]) for row in rows} == {
        ("alpha", False, "Emergency"),
        ("beta", False, "Emergency"),
    }
    fine(operator, "flags", "emergency-enable", "--all", "-r", "over", "--in", name)
    assert last(operator, name)["action"] == "EmergencyEnable"


def test_names_with_dots(operator: Lab) -> None:
    """D25: features may have them, and so may actions that are not created by the plugin; a rollout may not."""
    body = shop("dotted")
    for field in ("workload", "database", "migrations", "guards"):
        del body["spec"][field]
    body["spec"]["features"] = [{"name": "shop.cart"}, {"name": "shop.cart.v2", "dependsOn": ["shop.cart"]}]
    body["spec"]["phases"] = [
        {"name": "one", "features": ["shop.cart", "shop.cart.v2"], "steps": [{"percent": 100, "hold": "1h"}]}
    ]
    operator.apply(body)
    holding(operator, "dotted")
    name = ".".join(["a", *("b" * 60,) * 4])
    emergency = {"rollout": "dotted", "action": "EmergencyDisable", "features": ["shop.cart"], "reason": "drill"}
    kind = {"apiVersion": "sessionrollout.dev/v1alpha1", "kind": "SessionRolloutAction"}
    operator.apply({**kind, "metadata": {"name": name, "namespace": "default"}, "spec": emergency})
    operator.until(lambda: status(operator, "dotted")["flags"].get("disabled"), 30, "the emergency")
    assert status(operator, "dotted")["flags"]["disabled"][0]["by"] == name
    assert name in "".join(fine(operator, "status", "dotted").out.split())  # the terminal wraps it
    assert {entry.get("by") for entry in data(operator, "history", "dotted")} >= {name}
    rows = {row["feature"]: row["disabled"] for row in data(operator, "flags", "status", "--in", "dotted")}
    assert all(rows[feature] for feature in ("shop.cart", "shop.cart.v2"))
    fine(operator, "flags", "emergency-enable", "shop.cart", "-r", "over", "--in", "dotted")
    forced = data(operator, "flags", "who", "u", "--off", "shop.cart.v2", "--in", "dotted")
    assert [(row["feature"], row["on"]) for row in forced] == [("shop.cart", True), ("shop.cart.v2", False)]
    fine(operator, "flags", "verify", "--users", "10", "--in", "dotted")
    fine(operator, "abort", "dotted", "-y", "-r", "over")


def quick(name: str, **spec: object) -> Object:
    """A rollout that ends within seconds."""
    body = shop(name)
    for field in ("workload", "database", "migrations", "guards"):
        del body["spec"][field]
    phase = {"name": "one", "features": ["alpha", "beta"], "steps": [{"percent": 100, "hold": "1s"}]}
    return {**body, "spec": {**body["spec"], "phases": [phase], **spec}}


def test_waiting_ends_with_a_code_for_each_state(operator: Lab) -> None:
    """0 Promoted, 1 rolled back, 2 Stalled, 124 on the timeout; the same for `status --watch`."""
    operator.apply(quick("promoted"))
    operator.apply(quick("stalled", metrics=[{"name": "errors", "query": "rate("}]))
    assert run(operator, "wait", "promoted", "--timeout", "1m").code == Exit.DONE
    assert run(operator, "status", "promoted", "--watch").code == Exit.DONE
    assert run(operator, "wait", "stalled", "--timeout", "1m").code == Exit.STALLED
    assert run(operator, "wait", "stalled", "--for", "Stalled", "--timeout", "1m").code == Exit.DONE
    assert run(operator, "status", "stalled", "-w", "--timeout", "1m").code == Exit.STALLED
    assert run(operator, "wait", SHOP, "--timeout", "1s").code == Exit.TIMEOUT
    assert run(operator, "status", SHOP, "-w", "--timeout", "1s").code == Exit.TIMEOUT


def test_operator_that_does_not_answer(operator: Lab) -> None:
    """The action remains and is answered later. D24: the plugin says that the operator does not run, when it is surely so."""
    assert operator.operator is not None
    holding(operator, SHOP)
    assert "Lease" not in fine(operator, "get").err
    operator.operator.stop()
    try:
        operator.until(lambda: "has not renewed its Lease for" in fine(operator, "get").err, 60, "an old Lease")
        assert "has not renewed its Lease for" in fine(operator, "status", SHOP).err
        assert run(operator, "pause", SHOP, "--timeout", "1s").code == Exit.TIMEOUT
    finally:
        operator.start_operator()
    operator.until(lambda: status(operator, SHOP).get("pausedBy"), 30, "the late answer")
    fine(operator, "resume", SHOP)
