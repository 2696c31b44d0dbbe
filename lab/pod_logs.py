"""The one answer of a kubelet that users need: `kubectl logs`, through the API server."""

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import trustme


class _Logs(BaseHTTPRequestHandler):
    """The one answer of a kubelet that users need: `kubectl logs`, through the API server."""

    pods: Path

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query, parts = parse_qs(url.query), url.path.strip("/").split("/")
        log = self.pods / f"{parts[2]}.log" if len(parts) == 4 and parts[0] == "containerLogs" else self.pods / "none"
        if not log.exists():
            self.send_error(404)
            return
        body = log.read_bytes()
        if lines := int(query.get("tailLines", ["0"])[0]):
            body = b"".join(body.splitlines(keepends=True)[-lines:])
        body = body[: int(query.get("limitBytes", [str(len(body))])[0])]
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve_logs(directory: Path) -> ThreadingHTTPServer:
    """Serve the Pods' logs over TLS, as the API server requests them."""
    handler = type("Logs", (_Logs,), {"pods": directory})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True, name="node-logs").start()
    return server
