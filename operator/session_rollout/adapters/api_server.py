"""The Kubernetes API server over HTTP: the transport of the `kubernetes` client, with plain JSON in and out.

The client's generated models are not used: they cost memory and drop unknown fields. Errors become those of
`session_rollout.errors`. Of an error's body only reason and message are kept, because it may echo what was sent.

An answer is not trusted: a proxy between may answer 200 or 404 with a page of its own. What is no JSON, too large, nested too deep,
not the object that was requested or not a Status (`adapters.answers`) is `Unavailable`, as is no answer.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException

from session_rollout.adapters import answers
from session_rollout.adapters.clock import ServerClock
from session_rollout.adapters.telemetry import API_REQUESTS
from session_rollout.adapters.tracing import span
from session_rollout.api import API_VERSION
from session_rollout.api.rollout import SessionRollout
from session_rollout.errors import NotFound, Request, RolloutError, Unavailable

Object = Mapping[str, Any]
Query = Mapping[str, str | int]
FIELD_MANAGER: Final = "session-rollout"
REQUEST_SECONDS: Final = 10.0
URGENT_SECONDS: Final = 3.0  # for what protects users, and for the Lease: a new attempt is better than a long wait
CONNECTIONS: Final = 1024  # at most: callers bound what hangs, and the rest must not wait for it
JSON: Final = "application/json"
MERGE: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
APPLY: Final = "application/apply-patch+yaml; charset=utf-8"  # with a parameter, the client sends bytes as they are
READ: Final = "GET"


def _nothing() -> None:
    """No condition for writes."""


class ApiServer:
    """An authenticated session; open with `connect`.

    `confirm` is called before each request that changes something, and raises Unavailable when this process may not write. It is the
    only place that does: no caller can forget it. The Lease has a session of its own, without it.
    """

    confirm: Callable[[], None] = staticmethod(_nothing)

    def __init__(self, client: ApiClient, configuration: Configuration, clock: ServerClock) -> None:
        self._client = client
        self._configuration = configuration
        self._clock = clock

    @classmethod
    async def connect(cls, clock: ServerClock) -> "ApiServer":
        """From the Pod's ServiceAccount, or from KUBECONFIG. Each has its own connections, and its requests wait for no other."""
        configuration = Configuration()
        configuration.client_session_kwargs = {"trust_env": False}  # as Kopf; reading it costs a thread for each request
        configuration.connection_pool_maxsize = CONNECTIONS
        try:
            config.load_incluster_config(configuration)
        except config.ConfigException:
            await config.load_kube_config(client_configuration=configuration)
        return cls(ApiClient(configuration), configuration, clock)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: str = JSON,
        query: Query | None = None,
        seconds: float = REQUEST_SECONDS,
        accept: str = JSON,
    ) -> dict[str, Any]:
        """One request for JSON, all of it within `seconds`.

        Raises what a Status object of the API server says: Conflict (409), SpecError (400, 422), NotFound (404, if it names the
        requested object), Forbidden (403). Raises Unavailable on all other failures.
        """
        sent = time.monotonic()
        text, date = await self._answer(method, path, body, content, query, seconds, accept)
        parsed = answers.checked(text, method, path)
        if date is not None:
            self._clock.heard(date, sent, time.monotonic())
        return parsed

    async def text(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: str = JSON,
        query: Query | None = None,
        seconds: float = REQUEST_SECONDS,
    ) -> str:
        """One request, with its response as text. Raises as `request` does."""
        text, _ = await self._answer(method, path, body, content, query, seconds, JSON)
        return text.decode(errors="replace")

    async def _answer(
        self, method: str, path: str, body: Any, content: str, query: Query | None, seconds: float, accept: str
    ) -> answers.Answer:
        if method != READ:
            self.confirm()
        url = self._configuration.host + path + (f"?{urlencode(query)}" if query else "")
        headers = {"Content-Type": content, "Accept": accept, "User-Agent": FIELD_MANAGER}
        with span("api", {"http.request.method": method, "url.path": path}):
            try:
                return await self._send(method, path, url, headers, body, seconds)
            except RolloutError as error:
                error.request = request_of(method, path)
                raise

    async def _send(
        self, method: str, path: str, url: str, headers: dict[str, str], body: Any, seconds: float
    ) -> answers.Answer:
        try:
            async with asyncio.timeout(seconds):
                await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
                data = _yaml(body) if headers["Content-Type"] == APPLY else body
                answer = await self._client.call_api(method, url, headers, data, _request_timeout=seconds)
                async with answer.response:
                    text = await answers.read(answer.response)
        except ApiException as error:
            API_REQUESTS.labels(method, str(error.status)).inc()
            raise answers.error_of(error.status, error.body, error.headers, path) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            API_REQUESTS.labels(method, "error").inc()
            raise Unavailable(f"API server: {type(error).__name__} on {method} {path}") from error
        API_REQUESTS.labels(method, str(answer.status)).inc()
        if answer.status >= 400:  # noqa: PLR2004 - HTTP
            raise answers.error_of(answer.status, text, answer.headers, path)
        return text, answers.date_of(answer.headers)

    async def find(self, path: str, *, seconds: float = REQUEST_SECONDS) -> dict[str, Any] | None:
        """GET; None when the API server says that there is no such object."""
        try:
            return await self.request(READ, path, seconds=seconds)
        except NotFound:
            return None

    async def apply(
        self, path: str, body: Object, *, dry_run: bool = False, seconds: float = REQUEST_SECONDS
    ) -> dict[str, Any]:
        """Server-side apply with the operator's field manager; it takes back fields that other managers changed."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true", **({"dryRun": "All"} if dry_run else {})}
        return await self.request("PATCH", path, body, content=APPLY, query=query, seconds=seconds)


def _yaml(body: Any) -> bytes:
    """JSON that is YAML, too: YAML has no surrogates, so characters beyond 16 bits are not escaped, and all others are."""
    text = json.dumps(body, ensure_ascii=False)
    return re.sub(r"[\x7f-\uffff]", lambda match: f"\\u{ord(match[0]):04x}", text).encode()


VERBS: Final = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def request_of(method: str, path: str) -> Request:
    """Verb, resource and namespace of a request, as RBAC names them: `patch configmaps` in `shop`."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = rest[1] if rest[:1] == ["namespaces"] and len(rest) > 2 else ""  # noqa: PLR2004 - namespaces/NAME/RESOURCE
    rest = rest[2:] if namespace else rest
    resource = "/".join([*rest[:1], *rest[2:3]])
    verb = "list" if method == "GET" and len(rest) == 1 else VERBS.get(method, method.lower())
    return Request(verb, resource, namespace)


def owner_of(rollout: SessionRollout) -> dict[str, Any]:
    """The owner reference of an object that is deleted with its rollout."""
    return {"apiVersion": API_VERSION, "kind": "SessionRollout", "name": rollout.name, "uid": rollout.uid, "controller": True}


def owner_uids(item: Mapping[str, Any]) -> frozenset[str]:
    """UIDs of the owners of an object. Copies of it have its labels, and mostly not its owners."""
    return frozenset(owner["uid"] for owner in item["metadata"].get("ownerReferences") or ())
