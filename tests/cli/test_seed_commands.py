"""Every `npm run` line of the deployment guide has a counterpart in docs/demo/seed-commands.md, and each of them does what it says.

The rollout of the guide runs on the lab with its application, database and Prometheus; the table's own commands are run, in the
guide's order, and each is followed by an assertion on its effect. The guide is a copy, and is only read.
"""

import contextlib
import os
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator

import pytest
import yaml

from cli.guide import World, configuration, guide_rollout
from cli.plugin import inside
from lab.kube import Object
from lab.lab import ROOT, Lab
from lab.population import users
from lab.session_persistence import NAME, NAMESPACE, DeployedApplication
from lab.sessions import run as execute
from lab.sessions import value
from session_rollout.cli.command import Exit

GUIDE = ROOT / "tests" / "data" / "session-persistence-deployment.md"
PAGE = ROOT / "docs" / "demo" / "seed-commands.md"


def guide_names() -> set[str]:
    """Names after `npm run` in the guide."""
    return set(re.findall(r"npm run ([\w:-]+)", GUIDE.read_text()))


def page() -> dict[str, str]:
    """Name in the guide to its counterpart, from the table."""
    rows = re.findall(r"^\| `([\w:-]+)` \| `([^`]+)` \| .+ \|$", PAGE.read_text(), re.MULTILINE)
    assert len({name for name, _ in rows}) == len(rows)
    return dict(rows)


def test_page_has_every_name_of_the_guide() -> None:
    """And no other."""
    assert set(page()) == guide_names()
    assert len(guide_names()) == 36


@pytest.fixture(scope="module")
def world(lab: Lab) -> Iterator[World]:
    """The guide's rollout, from its deployment on."""
    application = DeployedApplication(lab)
    application.deploy()
    rules = yaml.safe_load((ROOT / "examples" / "session-persistence-alerts.yaml").read_text())["data"]["rules.yaml"]
    assert lab.prometheus is not None
    lab.prometheus.rules(yaml.safe_load(rules))
    lab.start_operator(**configuration())
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "analy-ticket-web", "namespace": NAMESPACE}}
    lab.apply({**service, "spec": {"selector": {"app": "analy-ticket-web"}, "ports": [{"port": application.port}]}})
    lab.until(lambda: _answers(application, "session_error_rate"), 60, "the application being scraped")
    lab.until(lambda: _answers(application, "sum(rate(cache_requests_total[4s]))"), 30, "rates")
    lab.apply(guide_rollout(application.port))
    made = World(lab, application)
    yield made
    # Others use the same names: nothing of this rollout may be left.
    for kind, name in (("sro", NAME), ("deployment", "analy-ticket-web"), ("service", "analy-ticket-web")):
        lab.kubectl("delete", kind, name, "-n", NAMESPACE, "--ignore-not-found")
    lab.kubectl("delete", "configmap", f"{NAME}-flags", "-n", NAMESPACE, "--ignore-not-found")
    lab.kubectl("wait", "--for=delete", "job", "--all", "-n", NAMESPACE, "--timeout=180s")
    execute(made.dsn, "DROP SCHEMA session_rollout CASCADE", "DROP TABLE user_sessions, users CASCADE")
    assert lab.operator is not None
    lab.operator.stop()


def _answers(application: DeployedApplication, query: str) -> bool:
    with contextlib.suppress(OSError):
        return application.query(query) is not None
    return False


# --- what each must have done


def migrate_up(world: World, line: str) -> None:
    world.lab.until(lambda: world.status.get("current", {}).get("phase"), 60, "the first phase")
    world.lab.until(lambda: world.status["current"]["stage"] == "Step", 60, "the first step")
    assert world.row(line, "session-tables")["state"] == "Succeeded"
    assert world.application.tables()["tables"] == ["enhanced_user_sessions", "session_analytics", "session_feature_flags"]


def migrate_status(world: World, line: str) -> None:
    tables = world.row(line, "session-tables")
    assert (tables["state"], tables["operation"]) == ("Succeeded", "up")


def flags_verify(world: World, line: str) -> None:
    assert len(world.data(line)) == 19


def flags_status(world: World, line: str) -> None:
    manager = world.row(line, "enhancedSessionManager", key="feature")
    assert (manager["percent"], manager["phase"]) == ("100", "core-infrastructure")


def passes(check: str) -> Callable[[World, str], None]:
    def effect(world: World, line: str) -> None:
        assert world.row(line, check)["verdict"] == "Pass"

    return effect


def smoke(profile: str) -> Callable[[World, str], None]:
    def effect(world: World, line: str) -> None:
        before = jobs(world, profile)
        passes(profile)(world, line)
        assert len(jobs(world, profile)) == len(before) + 1

    return effect


def jobs(world: World, profile: str) -> list[Object]:
    select = f"sessionrollout.dev/check={profile}"
    return list(world.lab.kube.get(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs", labelSelector=select)["items"])


def diagnosed(*names: str) -> Callable[[World, str], None]:
    def effect(world: World, line: str) -> None:
        argv, last = shlex.split(line)[2:], ""

        def measured() -> bool:
            """A range of few seconds is empty for a moment when a scrape is late."""
            nonlocal last
            last = inside(world.lab, *argv, "-n", NAMESPACE).out
            return "NoData" not in last

        world.lab.until(measured, 60, f"data for {' '.join(argv)}")
        assert [name for name in names if name not in last] == [], last

    return effect


def enable_core(world: World, line: str) -> None:
    before = len(world.actions())
    world.sro(line)
    assert len(world.actions()) == before  # the phase has done it
    core = world.lab.rollout(NAME, NAMESPACE)["spec"]["phases"][0]["features"]
    assert [world.share(feature) for feature in core] == [1.0] * 7


def gradual(world: World, line: str) -> None:
    current = world.data(line)["status"]["current"]
    assert (current["phase"], current["step"], current["audience"]) == ("core-infrastructure", 1, "100%")


def dashboard(world: World, line: str) -> None:
    argv = [sys.executable, "-m", "session_rollout.cli.app", *shlex.split(line)[2:], "-n", NAMESPACE]
    where = {"KUBECONFIG": str(world.lab.kubeconfig), "KUBECTL": world.lab.kubectl_path, "PYTHONPATH": "operator"}
    path = world.lab.directory / "dashboard.txt"
    with path.open("w") as out:
        process = subprocess.Popen(argv, env={**os.environ, **where}, stdout=out)
    try:
        for words in ("core-infrastructure", "session-error-rate"):
            world.lab.until(lambda words=words: words in path.read_text(), 30, f"{words} on the dashboard")
        assert process.poll() is None, "it stays"
    finally:
        process.terminate()
        process.wait(60)


def flags_enable(world: World, line: str) -> None:
    assert inside(world.lab, *shlex.split(line)[2:], "-n", NAMESPACE).code == Exit.REFUSED  # another phase is running
    world.promote("connection-management", 1)
    world.sro(line)
    beta = next(user.id for user in users() if "beta" in user.groups)
    world.lab.until(lambda: world.application.has(beta, "connectionMonitoring"), 20, "the application seeing it")


def flags_rollout(world: World, line: str) -> None:
    execute(world.dsn, "INSERT INTO user_sessions (session_id, preferences) VALUES ('spoiled', '[]')")
    world.promote("state-persistence", 1)
    other = inside(world.lab, "flags", "rollout", "formAutoSave", "--percentage", "25", "-n", NAMESPACE)
    assert other.code == Exit.REFUSED  # no step has 25 %
    world.sro(line)
    world.promote("state-persistence", 2)
    world.lab.until(lambda: 0.1 < world.share("formAutoSave") < 0.5, 20, "a fifth of the users")


def sessions_moved(world: World, line: str) -> None:
    assert world.row(line, "legacy-sessions")["state"] == "Succeeded"
    assert world.rows()["done"] >= 40_000
    assert value(world.dsn, "SELECT count(*) FROM enhanced_user_sessions WHERE migration_source = 'legacy'") >= 40_000


def sessions_status(world: World, line: str) -> None:
    assert world.row(line, "legacy-sessions")["quarantined"] == 1


def sessions_retry(world: World, line: str) -> None:
    execute(world.dsn, "UPDATE user_sessions SET preferences = '{}' WHERE session_id = 'spoiled'")
    world.sro(line)
    world.idle()
    assert value(world.dsn, "SELECT count(*) FROM enhanced_user_sessions WHERE session_id = 'spoiled'") == 1


def sessions_repair(world: World, line: str) -> None:
    damage = "UPDATE enhanced_user_sessions SET preferences = '\"broken\"' WHERE session_id = 'spoiled'"
    execute(world.dsn, damage)
    world.sro(line)
    world.idle()
    assert value(world.dsn, "SELECT preferences::text FROM enhanced_user_sessions WHERE session_id = 'spoiled'") == "{}"


def sessions_restore(world: World, line: str) -> None:
    execute(world.dsn, "DELETE FROM user_sessions WHERE id IN (SELECT id FROM user_sessions WHERE session_id = md5('token7'))")
    world.sro(line)
    world.idle()
    assert value(world.dsn, "SELECT count(*) FROM user_sessions WHERE session_id = md5('token7')") == 1


def emergency(world: World, line: str) -> None:
    world.sro(line)
    assert [row["feature"] for row in world.status["flags"]["disabled"]] == ["offlineMode"]
    world.lab.until(lambda: world.share("offlineMode") + world.share("offlineIndicators") == 0, 20, "both off")
    assert world.share("formAutoSave") > 0
    world.sro("kubectl sessionrollout flags emergency-enable offlineMode --reason over")
    world.lab.until(lambda: world.share("offlineMode") > 0, 20, "on again")


def emergency_all(world: World, line: str) -> None:
    world.sro(line)
    features = [feature["name"] for feature in world.lab.rollout(NAME, NAMESPACE)["spec"]["features"]]
    world.lab.until(lambda: not any(world.share(feature) for feature in features), 30, "all off")
    world.sro("kubectl sessionrollout flags emergency-enable --all --reason over")


def restarted(world: World, line: str) -> None:
    before = pods(world)
    world.sro(line)
    other_pods(world, before)


def pods(world: World) -> set[str]:
    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    return {pod["metadata"]["uid"] for pod in world.lab.kube.get(path, labelSelector="app=analy-ticket-web")["items"]}


def other_pods(world: World, before: set[str]) -> None:
    """Those of `before` still answer for a while: none of them, and then health."""
    world.lab.until(lambda: pods(world) and not before & pods(world), 90, "other Pods")
    world.lab.until(lambda: healthy(world), 60, "the application")


def deploy_rollback(world: World, line: str) -> None:
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/analy-ticket-web"
    annotations = world.lab.kube.get(path)["spec"]["template"]["metadata"].get("annotations", {})
    assert "sessionrollout.dev/restarted-at" in annotations  # the second revision; the first has none
    before = pods(world)
    world.sro(line)
    world.lab.until(lambda: world.status["workload"].get("undoneTime"), 30, "the undo")
    assert not world.lab.kube.get(path)["spec"]["template"]["metadata"].get("annotations", {})
    other_pods(world, before)


def healthy(world: World) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{world.application.url}/health", timeout=30) as answer:
        return bool(answer.status == 200)
    return False


def migrate_down(world: World, line: str) -> None:
    scope = '{"spec": {"rollback": {"scope": "All"}}}'  # nobody must have a feature of the phase whose migration is undone
    world.lab.kubectl("patch", "sro", NAME, "-n", NAMESPACE, "--type=merge", "-p", scope)
    generation = world.lab.rollout(NAME, NAMESPACE)["metadata"]["generation"]
    world.lab.until(lambda: world.status.get("observedGeneration") == generation, 60, "the new scope")
    world.sro("kubectl sessionrollout abort -y --reason 'the guide is at its end'")
    world.lab.until(lambda: world.status.get("outcome") == "Aborted", 60, "an outcome")
    world.sro(line)
    world.idle()
    assert value(world.dsn, "SELECT count(*) FROM enhanced_user_sessions WHERE migration_source = 'legacy'") == 0
    assert value(world.dsn, "SELECT count(*) FROM user_sessions") >= 40_000


def migrate_rollback(world: World, line: str) -> None:
    world.sro(line)
    world.idle()
    assert world.application.tables()["tables"] == []


def project_tests(_: World, line: str) -> None:
    plan = subprocess.run(["make", "-n", *shlex.split(line)[1:]], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "-m pytest" in plan


def wheel(_: World, line: str) -> None:
    subprocess.run(shlex.split(line), cwd=ROOT, capture_output=True, text=True, check=True)
    [made] = sorted((ROOT / "build").glob("session_rollout-*.whl"))
    names = subprocess.run([sys.executable, "-m", "zipfile", "-l", made], capture_output=True, text=True, check=True).stdout
    assert "session_rollout/cli/app.py" in names
    assert "session_rollout/cli/render/templates/page.html.j2" in names
    assert "bundles/session-persistence/sessions/copy.yaml" in names
    made.unlink()


# In the guide's order: before, during and after the deployment, then the troubles, then the way back.
EFFECTS: dict[str, Callable[[World, str], None]] = {
    "test:all": project_tests,
    "build": wheel,
    "migrate:up": migrate_up,
    "migrate:status": migrate_status,
    "feature-flag:verify": flags_verify,
    "deploy:staging": passes("application"),
    "test:smoke": smoke("smoke-tests"),
    "deploy:production": passes("application"),
    "deploy:verify": passes("health"),
    "monitoring:enable": passes("alerts"),
    "feature-flag:enable-core": enable_core,
    "feature-flag:status": flags_status,
    "monitoring:dashboard": dashboard,
    "feature-flag:gradual-rollout": gradual,
    "monitoring:check-errors": diagnosed("Guard", "session-error-rate", "connection-recovery", "users-affected"),
    "monitoring:memory": diagnosed("resident-memory"),
    "debug:memory-leaks": diagnosed("memory-growth"),
    "profile:performance": diagnosed("session-initialization", "page-load-p95"),
    "db:analyze-queries": diagnosed("database-up"),
    "cache:optimize": diagnosed("cache-hits"),
    "feature-flag:enable": flags_enable,
    "feature-flag:rollout": flags_rollout,
    "migrate:sessions": sessions_moved,
    "migrate:sessions:status": sessions_status,
    "migrate:sessions:retry": sessions_retry,
    "session:recover-data": sessions_repair,
    "session:restore-backup": sessions_restore,
    "feature-flag:emergency-disable": emergency,
    "feature-flag:emergency-disable-all": emergency_all,
    "test:session-smoke": smoke("session-smoke-tests"),
    "test:user-journey": smoke("user-journeys"),
    "service:restart": restarted,
    "deploy:rollback": deploy_rollback,
    "rollback:verify": passes("healthy-again"),
    "migrate:down": migrate_down,
    "migrate:rollback": migrate_rollback,
}


def test_every_name_is_walked() -> None:
    """None is left out."""
    assert set(EFFECTS) == guide_names()


@pytest.mark.parametrize("name", EFFECTS)
def test_counterpart_does_what_the_page_says(name: str, world: World) -> None:
    """The table's own line is run, and its effect is looked for."""
    EFFECTS[name](world, page()[name])
