"""The Kubernetes API server over HTTP: the transport of the `kubernetes` client, with plain JSON in and out.

The client's generated models are not used: they cost memory and drop unknown fields. Errors become those of
`session_rollout.errors`. Of an error's body only reason and message are kept, because it may echo what was sent.
"""

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException

from session_rollout.adapters.telemetry import API_REQUESTS
from session_rollout.adapters.tracing import span
from session_rollout.api import API_VERSION
from session_rollout.api.rollout import SessionRollout
from session_rollout.errors import Conflict, Forbidden, NotFound, Request, RolloutError, SpecError, Unavailable

Object = Mapping[str, Any]
Query = Mapping[str, str | int]
FIELD_MANAGER: Final = "session-rollout"
REQUEST_SECONDS: Final = 10.0
JSON: Final = "application/json"
MERGE: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
APPLY: Final = "application/apply-patch+yaml"


class ApiServer:
    """An authenticated session; open with `connect`."""

    def __init__(self, client: ApiClient, configuration: Configuration) -> None:
        self._client = client
        self._configuration = configuration

    @classmethod
    async def connect(cls) -> "ApiServer":
        """From the Pod's ServiceAccount, or from KUBECONFIG."""
        configuration = Configuration()
        try:
            config.load_incluster_config(configuration)
        except config.ConfigException:
            await config.load_kube_config(client_configuration=configuration)
        return cls(ApiClient(configuration), configuration)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def request(
        self, method: str, path: str, body: Any = None, *, content: str = JSON, query: Query | None = None
    ) -> dict[str, Any]:
        """One request for JSON. Raises Conflict on 409, SpecError on 400 and 422, and Unavailable on all other failures."""
        return dict(json.loads(await self.text(method, path, body, content=content, query=query)))

    async def text(self, method: str, path: str, body: Any = None, *, content: str = JSON, query: Query | None = None) -> str:
        """One request, with its response as text. Raises as `request` does; NotFound on 404, Forbidden on 403."""
        url = self._configuration.host + path + (f"?{urlencode(query)}" if query else "")
        headers = {"Content-Type": content, "Accept": JSON, "User-Agent": FIELD_MANAGER}
        with span("api", {"http.request.method": method, "url.path": path}):
            try:
                return await self._send(method, path, url, headers, body)
            except RolloutError as error:
                error.request = request_of(method, path)
                raise

    async def _send(self, method: str, path: str, url: str, headers: dict[str, str], body: Any) -> str:
        try:
            await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            response = await self._client.call_api(method, url, headers, body, _request_timeout=REQUEST_SECONDS)
            text = await response.read()
        except ApiException as error:
            API_REQUESTS.labels(method, str(error.status)).inc()
            raise _translated(error.status, error.body) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            API_REQUESTS.labels(method, "error").inc()
            raise Unavailable(f"API server: {type(error).__name__} on {method} {path}") from error
        API_REQUESTS.labels(method, str(response.status)).inc()
        if response.status >= 400:  # noqa: PLR2004 - HTTP
            raise _translated(response.status, text)
        return str(text.decode(errors="replace"))

    async def find(self, path: str) -> dict[str, Any] | None:
        """GET; None on 404."""
        try:
            return await self.request("GET", path)
        except NotFound:
            return None

    async def apply(self, path: str, body: Object, *, dry_run: bool = False) -> dict[str, Any]:
        """Server-side apply with the operator's field manager; it takes back fields that other managers changed."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true", **({"dryRun": "All"} if dry_run else {})}
        return await self.request("PATCH", path, body, content=APPLY, query=query)


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


def _translated(code: int | None, body: Any) -> Exception:
    try:
        parsed = json.loads(body)
        text = f"{parsed.get('reason', '')}: {parsed.get('message', '')}"[:300]
    except (ValueError, TypeError, AttributeError):
        text = "the response is not a Status object"
    match code:
        case 404:
            return NotFound(text)
        case 403:
            return Forbidden(text)
        case 409:
            return Conflict(text)
        case 400 | 422:
            return SpecError(text)
    return Unavailable(f"API server: HTTP status {code}: {text}")
