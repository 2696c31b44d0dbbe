"""A receiver of notifications that can fail in several ways, and an operator's configuration with sinks, checks and diagnostics."""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lab.kube import Object
from lab.lab import IMAGE
from lab.processes import free_port

KEY = b"a signing key"
PYTHON = ["python", "-c"]


class Receiver(ThreadingHTTPServer):
    """A chat's incoming webhook that can fail in several ways."""

    daemon_threads = True
    allow_reuse_address = True
    mode = "ok"


@dataclass
class Chat:
    """The receiver at one address, up or down, and what it took."""

    port: int = field(default_factory=free_port)
    taken: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    refused: int = 0
    server: Receiver | None = None
    thread: threading.Thread | None = None
    released: threading.Event = field(default_factory=threading.Event)

    def up(self, mode: str = "ok") -> None:
        """Listen."""
        self.down()
        chat = self

        class Take(BaseHTTPRequestHandler):
            server: Receiver

            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                body, mode = self.rfile.read(int(self.headers["Content-Length"])), self.server.mode
                if mode == "ok":
                    chat.taken.append((dict(self.headers), body))
                else:
                    chat.refused += 1
                if mode == "hang":
                    chat.released.wait(30)
                    return
                self.send_response(200 if mode == "ok" else 500)
                self.send_header("Content-Length", "0")
                self.end_headers()

        self.server = Receiver(("127.0.0.1", self.port), Take)
        self.server.mode = mode
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def down(self) -> None:
        """Refuse connections."""
        if self.server is not None and self.thread is not None:
            self.released.set()
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()
            self.server, self.released = None, threading.Event()

    def messages(self) -> list[Object]:
        """What was taken, each id once, as a receiver that de-duplicates sees it."""
        return list({body["id"]: body for body in (json.loads(text) for _, text in self.taken)}.values())


def settings(chat: Chat, directory: Path) -> dict[str, Any]:
    """The admin's part."""
    (directory / "key").write_bytes(KEY)
    (directory / "apprise").write_text(f"json://127.0.0.1:{chat.port}/apprise")
    check = {"image": IMAGE, "serviceAccount": "default", "timeout": "30s", "command": PYTHON}
    webhook = {"url": f"http://127.0.0.1:{chat.port}/hook", "secretFile": str(directory / "key")}
    return {
        "checks": {
            "green": {**check, "args": ["print('all green')"]},
            "red": {**check, "args": ["raise SystemExit('3 of 40 tests failed')"]},
        },
        "diagnostics": {
            "errors": [{"name": "error-rate", "query": "lab_errors", "below": "1%", "advice": "look at the last step"}],
            "capacity": [{"name": "disk", "query": "vector(5)", "above": "10", "advice": "make room"}],
            "cache": [{"name": "hits", "query": "vector(0.9)", "above": "80%"}],
        },
        "alerts": ["LabErrors"],
        "runAsUser": 20001,
        "sinks": {
            "chat": {"webhook": webhook, "timeout": "2s"},
            "apprise": {"urlFile": str(directory / "apprise")},
        },
    }


def service(name: str, number: int) -> Object:
    """A Service; where it leads is the configuration's to say."""
    metadata = {"name": name, "namespace": "default"}
    spec = {"selector": {"app": name}, "ports": [{"port": number}]}  # a gate rejects a Service without a selector
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
