"""Unknown names, dead servers, missing logins and wrong arguments: one sentence and a documented exit code for every command."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cli.fake_kubectl import install
from cli.plugin import SHOP, Done, inside, refused
from lab.lab import Lab
from session_rollout.cli.command import Exit

COMMANDS = [
    ("status", "{}"),
    ("status", "{}", "--watch"),
    ("wait", "{}"),
    ("explain", "{}"),
    ("history", "{}"),
    ("events", "{}"),
    ("report", "{}"),
    ("approve", "{}"),
    ("promote", "{}", "-y", "-r", "x"),
    ("pause", "{}"),
    ("resume", "{}"),
    ("abort", "{}", "-y", "-r", "x"),
    ("rollback", "{}", "-y", "-r", "x"),
    ("retry", "{}"),
    ("adopt", "{}", "-r", "x"),
    ("reset", "{}", "-y", "-r", "x"),
    ("restart", "{}", "-y", "-r", "x"),
    ("flags", "status", "--in", "{}"),
    ("flags", "who", "u", "--in", "{}"),
    ("flags", "verify", "--in", "{}"),
    ("flags", "stale", "--in", "{}"),
    ("flags", "enable", "alpha", "--group", "g", "--in", "{}"),
    ("flags", "rollout", "alpha", "--percentage", "5", "--in", "{}"),
    ("flags", "emergency-disable", "alpha", "-r", "x", "--in", "{}"),
    ("flags", "emergency-enable", "alpha", "-r", "x", "--in", "{}"),
    ("migrations", "status", "--in", "{}"),
    ("migrations", "up", "--in", "{}"),
    ("migrations", "down", "--in", "{}", "-y", "-r", "x"),
    ("migrations", "plan", "--in", "{}"),
    ("data", "status", "--in", "{}"),
    ("data", "migrate", "--in", "{}"),
    ("data", "retry", "--in", "{}"),
    ("data", "repair", "--in", "{}"),
    ("data", "backup", "--in", "{}"),
    ("data", "restore", "--in", "{}", "-y", "-r", "x"),
    ("data", "verify", "--in", "{}"),
    ("verify", "{}"),
    ("diagnose", "errors", "{}"),
    ("check-errors", "{}"),
]
WRONG = [
    ("status", SHOP, "--watch", "-o", "json"),
    ("status", SHOP, "--timeout", "10s"),
    ("status", SHOP, "--watch", "--timeout", "10"),
    ("wait", SHOP, "--for", "Done"),
    ("status", SHOP, "--context", "nowhere"),
    ("status", SHOP, "--no-such-flag"),
    ("statu",),
    ("status", SHOP, "-o", "xml"),
    ("promote", SHOP),
    ("adopt", SHOP),
    ("reset", SHOP, "-y"),
    ("pause", SHOP, "--timeout", "soon"),
    ("flags", "emergency-disable", "-r", "x", "--in", SHOP),
    ("flags", "emergency-disable", "alpha", "--all", "-r", "x", "--in", SHOP),
    ("flags", "emergency-disable", "Alpha", "-r", "x", "--in", SHOP),
    ("flags", "rollout", "alpha", "--percentage", "many", "--in", SHOP),
    ("flags", "rollout", "alpha", "--percentage", "101", "--in", SHOP),
    ("flags", "rollout", "alpha", "--percentage", "nan", "--in", SHOP),
    ("flags", "enable", "nothing", "--group", "x", "--in", SHOP),
    ("flags", "verify", "--users", "0", "--in", SHOP),
    ("flags", "stale", "--older-than", "soon", "--in", SHOP),
    ("migrations", "plan", "nothing", "--in", SHOP),
    ("explain", SHOP, "--at", "soon"),
    ("explain", SHOP, "--at", "999999w ago"),
    ("data", "restore", "--in", SHOP, "-y", "-r", "x", "--at", "soon"),
    ("data", "restore", "--in", SHOP, "-y", "-r", "x", "--of", "not a user"),
    ("diagnose",),
    ("validate",),
    ("rehearse", "/nowhere"),
]


def one_sentence(done: Done, code: int) -> None:
    """Nothing but it, and the documented code."""
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert (done.code, len(lines)) == (code, 1), done
    assert lines[0].startswith("kubectl sessionrollout: ")


def filled(argv: tuple[str, ...], name: str) -> list[str]:
    return [part.format(name) for part in argv]


@pytest.mark.parametrize("argv", COMMANDS, ids=lambda argv: " ".join(argv[:2]))
def test_unknown_rollout_and_namespace(operator: Lab, argv: tuple[str, ...]) -> None:
    """Not found; the sentence names it."""
    unknown = inside(operator, *filled(argv, "nobody"))
    one_sentence(unknown, Exit.NOT_FOUND)
    assert "nobody" in unknown.err
    one_sentence(inside(operator, *filled(argv, SHOP), "-n", "nowhere"), Exit.NOT_FOUND)


@pytest.mark.parametrize("argv", [("get",), *COMMANDS], ids=lambda argv: " ".join(argv[:2]))
def test_dead_api_server_and_expired_token(operator: Lab, argv: tuple[str, ...], expired: Path) -> None:
    """Unreachable, and not logged in."""
    one_sentence(inside(operator, *filled(argv, SHOP), "--server", "https://127.0.0.1:9"), Exit.UNREACHABLE)
    one_sentence(inside(operator, *filled(argv, SHOP), KUBECONFIG=str(expired)), Exit.NOT_ALLOWED)


@pytest.fixture(scope="module")
def expired(operator: Lab) -> Path:
    """A kubeconfig whose token is worth nothing."""
    document = json.loads(operator.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": "expired"}
    path = operator.directory / "expired.kubeconfig"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("argv", WRONG, ids=[" ".join(argv) for argv in WRONG])
def test_wrong_arguments(operator: Lab, argv: tuple[str, ...]) -> None:
    """They have a code of their own, and create nothing."""
    one_sentence(refused(operator, *argv, code=Exit.USAGE, command=inside), Exit.USAGE)


@pytest.fixture
def empty_server() -> Iterator[str]:
    """A server that knows nothing."""

    class Empty(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_cluster_without_the_kinds(empty_server: str) -> None:
    """The object cannot be found, or the server is none of Kubernetes."""
    kubectl = str(Path(sys.executable).parent / "kubectl")  # of the lab's dependency group
    environment = {**os.environ, "PYTHONPATH": "operator", "KUBECONFIG": "/dev/null", "KUBECTL": kubectl}
    argv = [sys.executable, "-m", "session_rollout.cli.app", "status", "x", f"--server={empty_server}"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode in {Exit.NOT_FOUND, Exit.UNREACHABLE}, "Traceback" in done.stderr) == (True, False), done


@pytest.mark.parametrize(
    ("argv", "hint"),
    [(("flags", "emergency-disable", "alpha", "-r", "x"), "use --in NAME"), (("pause",), "NAME is required")],
    ids=["features", "names"],
)
def test_several_rollouts(argv: tuple[str, ...], hint: str, tmp_path: Path) -> None:
    """The arguments of `flags` are features, so the error names the option that selects the rollout."""
    items = [{"metadata": {"name": name}} for name in ("desk", "shop")]
    environment = {**os.environ, "PYTHONPATH": "operator", "KUBECTL": str(install(tmp_path, {"items": items}))}
    command = [sys.executable, "-m", "session_rollout.cli.app", *argv]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == Exit.USAGE, done
    assert f"{hint}, because there are several SessionRollouts: desk, shop" in done.stderr
