"""What each of the chart's roles may do with the plugin.

Covered: every reading command, every check on demand, every action, each with every role. Not here: the policies of the chart
on objects that are created without the plugin (tests/charts).
"""

import pytest

from cli.plugin import SHOP, inside
from lab.lab import OPERATOR_NAMESPACE, Lab
from session_rollout.cli.command import Exit

ROLES = ("viewer", "approver", "operator-on-call")
READS = [
    ("get",),
    ("status", SHOP),
    ("wait", SHOP, "--for", "Progressing"),
    ("explain", SHOP),
    ("history", SHOP),
    ("events", SHOP),
    ("flags", "status", "--in", SHOP),
    ("flags", "who", "u-1", "--in", SHOP),
    ("flags", "verify", "--users", "10", "--in", SHOP),
    ("flags", "stale", "--in", SHOP),
    ("migrations", "status", "--in", SHOP),
    ("data", "status", "--in", SHOP),
]
CHECKS = [("verify", SHOP), ("check-errors", SHOP), ("diagnose", "errors", SHOP)]
# Command -> the verb on sessionrolloutactions that it needs. All but three of them are also answered for a user on call.
ACTIONS = [
    (("pause", SHOP), "pause"),
    (("resume", SHOP), "resume"),
    (("flags", "emergency-disable", "beta", "-r", "drill", "--in", SHOP), "emergencydisable"),
    (("flags", "emergency-enable", "beta", "-r", "drill", "--in", SHOP), "emergencyenable"),
    (("migrations", "plan", "--in", SHOP), "inspectmigration"),
    (("restart", SHOP, "-y", "-r", "drill"), "restartworkload"),
    (("retry", SHOP), "retry"),
    (("adopt", SHOP, "-r", "drill"), "adopt"),  # refused for a rollout whose document is its own
    (("reset", SHOP, "-y", "-r", "drill"), "reset"),
    (("migrations", "down", "--in", SHOP, "-y", "-r", "drill"), "migratedown"),
    (("data", "retry", "--in", SHOP), "retrymigration"),
    (("data", "repair", "--in", SHOP), "repairdata"),
    (("data", "backup", "--in", SHOP), "backupdata"),
    (("data", "restore", "--in", SHOP, "-y", "-r", "drill"), "restoredata"),
    (("promote", SHOP, "-y", "-r", "drill"), "promote"),
    (("abort", SHOP, "-y", "-r", "drill"), "abort"),
    (("rollback", SHOP, "-y", "-r", "drill"), "abort"),
]
ENDING = {"promote", "abort", "rollback"}  # would end the step for the other tests


@pytest.fixture(scope="module")
def users(operator: Lab) -> Lab:
    """One user for each role of the chart; `stranger` has none."""
    for role in ROLES:
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"test-{role}", "namespace": "default"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"session-rollout-{role}"},
            "subjects": [{"kind": "User", "name": role, "apiGroup": "rbac.authorization.k8s.io"}],
        }
        operator.apply(binding)
    return operator


@pytest.mark.parametrize("argv", READS, ids=" ".join)
def test_every_role_may_read(users: Lab, argv: tuple[str, ...]) -> None:
    """A user without a role may not; the API server's sentence names the user."""
    for role in ROLES:
        done = inside(users, *argv, "-n", "default", "--as", role)
        assert done.code == Exit.DONE, (role, done)
    stranger = inside(users, *argv, "-n", "default", "--as", "stranger")
    assert (stranger.code, '"stranger"' in stranger.err) == (Exit.NOT_ALLOWED, True), stranger


@pytest.mark.parametrize("argv", CHECKS, ids=" ".join)
def test_approvers_may_run_checks(users: Lab, argv: tuple[str, ...]) -> None:
    """Viewers may not, because a check is an action."""
    assert inside(users, *argv, "--as", "approver").code == Exit.DONE
    assert inside(users, *argv, "--as", "viewer").code == Exit.NOT_ALLOWED


@pytest.mark.parametrize(("argv", "verb"), ACTIONS, ids=[" ".join(argv) for argv, _ in ACTIONS])
def test_only_users_on_call_may_act(users: Lab, argv: tuple[str, ...], verb: str) -> None:
    """An approver lacks the verb of the action, which is named; a viewer cannot create actions at all."""
    approver = inside(users, *argv, "--as", "approver")
    assert (approver.code, f" {verb} " in approver.err) == (Exit.NOT_ALLOWED, True), approver
    viewer = inside(users, *argv, "--as", "viewer")
    assert (viewer.code, " create " in viewer.err) == (Exit.NOT_ALLOWED, True), viewer
    if argv[0] not in ENDING:
        on_call = inside(users, *argv, "--as", "operator-on-call")
        assert on_call.code in {Exit.DONE, Exit.REFUSED}, on_call


def test_approver_may_approve(users: Lab) -> None:
    """Refused by the operator and not by the API server: no such gate waits."""
    assert inside(users, "approve", SHOP, "--check", "nosuch", "--as", "approver").code == Exit.REFUSED


SUPPORT = [
    (("list", "pods"), True),
    (("delete", "pods"), True),
    (("get", "pods/log"), True),
    (("list", "events"), True),
    (("get", "lease/session-rollout"), True),
    (("get", "deployment/session-rollout"), True),
    (("patch", "deployment/session-rollout"), False),
    (("update", "lease/session-rollout"), False),
    (("get", "secrets"), False),
    (("create", "pods/exec"), False),
]


def test_viewer_of_the_lease_may_read_only_it(lab: Lab) -> None:
    """D24: everybody who reads rollouts may have this Role, so that the plugin tells them when the operator does not run."""
    role = "--role=session-rollout-lease-viewer"
    lab.kubectl("-n", OPERATOR_NAMESPACE, "create", "rolebinding", "everybody", role, "--user=somebody")
    rights = {
        "get lease/session-rollout": True,
        "get lease/other": False,
        "list leases": False,
        "update lease/session-rollout": False,
    }
    for question, allowed in rights.items():
        command = ("auth", "can-i", *question.split(), "--as", "somebody")
        done = lab.kubectl("-n", OPERATOR_NAMESPACE, *command, check=False)
        assert done.stdout.strip() == ("yes" if allowed else "no"), question


@pytest.fixture(scope="module")
def support(lab: Lab) -> Lab:
    """A user with the Role for the runbooks of the operator, bound as the documentation does it."""
    role = "--role=session-rollout-operator-support"
    lab.kubectl("-n", OPERATOR_NAMESPACE, "create", "rolebinding", "support", role, "--user=support")
    return lab


@pytest.mark.parametrize(("question", "allowed"), SUPPORT, ids=[" ".join(question) for question, _ in SUPPORT])
def test_support_may_read_and_restart_the_operator(support: Lab, question: tuple[str, str], *, allowed: bool) -> None:
    """And change nothing: a changed Deployment runs any image as the operator. In other namespaces, nothing is allowed."""
    verb, resource = question
    command = ("auth", "can-i", verb, resource, "--as", "support")
    words = {True: "yes", False: "no"}
    here = support.kubectl("-n", OPERATOR_NAMESPACE, *command, check=False)
    elsewhere = support.kubectl("-n", "default", *command, check=False)
    assert (here.stdout.strip(), elsewhere.stdout.strip()) == (words[allowed], "no")
