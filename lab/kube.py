"""A small synchronous client for the lab's own side of the API: what a test, the node or the demo reads and writes.

It is not the operator's client: the lab must not see the cluster through the code it judges.
"""

import atexit
import base64
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

Object = dict[str, Any]
TIMEOUT = (5, 30)
BUSY_TRIES = 50  # 429: a kind that was just defined is being prepared


class ApiError(Exception):
    """An answer of 400 or above."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Kube:
    """One user's session with the API server, from a kubeconfig."""

    def __init__(self, config: Path) -> None:
        document = json.loads(config.read_text())
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        self.url = cluster["server"]
        self.config = config
        self._directory = Path(tempfile.mkdtemp(prefix="kube-"))
        atexit.register(shutil.rmtree, self._directory, ignore_errors=True)
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = str(self._file("ca", cluster["certificate-authority-data"]))
        if "token" in user:
            self.session.headers["Authorization"] = f"Bearer {user['token']}"
        else:
            self.session.cert = (
                str(self._file("crt", user["client-certificate-data"])),
                str(self._file("key", user["client-key-data"])),
            )

    def _file(self, name: str, data: str) -> Path:
        path = self._directory / name
        path.write_bytes(base64.b64decode(data))
        return path

    def request(self, method: str, path: str, body: Any = None, *, content: str = "application/json", **query: Any) -> Object:
        """One request; raises ApiError on 400 and above."""
        for _ in range(BUSY_TRIES):
            answer = self.session.request(
                method,
                self.url + path,
                params=query,
                data=None if body is None else json.dumps(body),
                headers={"Content-Type": content},
                timeout=TIMEOUT,
            )
            if answer.status_code != 429:
                break
            time.sleep(0.2)
        if answer.status_code >= 400:
            try:
                message = answer.json().get("message", answer.text)
            except ValueError:
                message = answer.text
            raise ApiError(answer.status_code, message)
        return dict(answer.json())

    def get(self, path: str, **query: Any) -> Object:
        """GET."""
        return self.request("GET", path, **query)

    def find(self, path: str) -> Object | None:
        """GET, or nothing when it does not exist."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def create(self, path: str, body: Object, **query: Any) -> Object:
        """POST."""
        return self.request("POST", path, body, **query)

    def apply(self, path: str, body: Object, manager: str = "lab") -> Object:
        """Server-side apply."""
        return self.request("PATCH", path, body, content="application/apply-patch+yaml", fieldManager=manager, force="true")

    def merge(self, path: str, body: Object) -> Object:
        """JSON merge patch."""
        return self.request("PATCH", path, body, content="application/merge-patch+json")

    def delete(self, path: str, **query: Any) -> None:
        """DELETE; what is already gone is fine."""
        try:
            self.request("DELETE", path, **query)
        except ApiError as error:
            if error.code != 404:
                raise

    def watch(self, path: str, *, version: str = "", seconds: int = 3600, **query: Any) -> Iterator[Object]:
        """Events of one watch until the server closes it."""
        parameters = {"watch": "1", "timeoutSeconds": seconds, "allowWatchBookmarks": "true", **query}
        if version:
            parameters["resourceVersion"] = version
        with self.session.get(self.url + path, params=parameters, stream=True, timeout=(5, seconds + 5)) as answer:
            if answer.status_code >= 400:
                raise ApiError(answer.status_code, answer.text)
            for line in answer.iter_lines(chunk_size=None):
                if line:
                    yield json.loads(line)
