"""An API server that misbehaves as a test says: it has the Lease, lists without objects, and watches."""

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
PAGE = b"<html>Please log in</html>"
ROLLOUTS = ("sessionrollouts", "sessionrolloutactions")
DISCOVERY: dict[str, Any] = {
    "/api": {"versions": ["v1"]},
    "/apis": {
        "groups": [
            {"name": name, "versions": [{"version": version}], "preferredVersion": {"version": version}}
            for name, version in (("sessionrollout.dev", "v1alpha1"), ("batch", "v1"), ("apiextensions.k8s.io", "v1"))
        ]
    },
    "/api/v1": ["configmaps", "namespaces"],
    "/apis/batch/v1": ["jobs"],
    "/apis/apiextensions.k8s.io/v1": ["customresourcedefinitions"],
    "/apis/sessionrollout.dev/v1alpha1": ROLLOUTS,
}


def _resources(names: list[str]) -> dict[str, Any]:
    verbs = ["get", "list", "watch", "patch"]
    return {
        "resources": [
            {
                "name": name,
                "kind": name.title(),
                "singularName": name[:-1],
                "namespaced": True,
                "verbs": verbs,
                "shortNames": [],
            }
            for name in names
        ]
    }


def _not_found(path: str) -> dict[str, Any]:
    *_, plural, name = path.split("/")
    return {"kind": "Status", "metadata": {}, "reason": "NotFound", "details": {"kind": plural, "name": name}}


class MisbehavingApi(ThreadingHTTPServer):
    """It behaves until a field says otherwise.

    `hangs`: no request is answered; `hangs_at`: none whose path has this. `page`: requests whose path has this, or is this if
    `whole`, get a page of HTML, with the status `code`. `watch`: what watches answer, with the status `watch_code`; they end then.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hangs = False
        self.hangs_at: str | None = None
        self.page: str | None = None
        self.whole = False  # `page` is a whole path
        self.code = self.watch_code = 200
        self.watch: bytes | None = None
        self.watches: Counter[str] = Counter()  # by path
        self.pages = 0
        self.lease: dict[str, Any] | None = None
        self.renewals = 0
        self.waiting = 0

    def handle_error(self, *_: object) -> None:
        """A client that is gone is no error here."""

    def kubeconfig(self, directory: Path) -> Path:
        """A kubeconfig for it."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "it", "cluster": {"server": f"http://127.0.0.1:{self.server_port}"}}],
            "users": [{"name": "me", "user": {"token": "t"}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "me", "namespace": "default"}}],
            "current-context": "it",
        }
        path = directory / "kubeconfig"
        path.write_text(json.dumps(config))
        return path


class _Handler(BaseHTTPRequestHandler):
    server: MisbehavingApi
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if self._misbehaves(path):
            return
        if "watch=true" in self.path:
            self._watch()
        elif path in DISCOVERY:
            found = DISCOVERY[path]
            self._answer(200, found if isinstance(found, dict) else _resources(list(found)))
        elif path.startswith(LEASES):
            self._answer(200 if self.server.lease else 404, self.server.lease or _not_found(path))
        else:
            self._answer(200, {"kind": "List", "metadata": {"resourceVersion": "1"}, "items": []})

    def do_POST(self) -> None:
        self._write()

    def do_PUT(self) -> None:
        self._write()

    def _write(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._misbehaves(self.path):
            self.server.renewals += 1
            body["metadata"]["resourceVersion"] = str(self.server.renewals)
            self.server.lease = body
            self._answer(200, body)

    def _misbehaves(self, path: str) -> bool:
        if self.server.hangs or (self.server.hangs_at is not None and self.server.hangs_at in path):
            self._hang()
            return True
        page = self.server.page
        if page is not None and (path == page if self.server.whole else page in path):
            self.server.pages += 1
            self._send(self.server.code, PAGE, "text/html")
            return True
        return False

    def _watch(self) -> None:
        self.server.watches[self.path.partition("?")[0]] += 1
        self.send_response(self.server.watch_code)
        self.end_headers()
        self.wfile.write(self.server.watch or b"")
        self.wfile.flush()
        self.close_connection = True
        if self.server.watch is None:
            self._hang()

    def _hang(self) -> None:
        """Until the client goes."""
        self.server.waiting += 1
        self.close_connection = True
        with contextlib.suppress(OSError):
            while self.connection.recv(65536):
                pass

    def _answer(self, status: int, body: Any) -> None:
        self._send(status, json.dumps(body).encode(), "application/json")

    def _send(self, status: int, body: bytes, content: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the standard library
        """Say nothing."""


@contextmanager
def misbehaving_api() -> Iterator[MisbehavingApi]:
    """One that runs, and behaves until it is told otherwise."""
    with MisbehavingApi() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
