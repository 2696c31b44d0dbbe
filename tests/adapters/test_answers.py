"""Answers that a proxy, a broken server or an attacker may give: none of them ends a task, and none is believed."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from session_rollout.adapters import answers
from session_rollout.adapters.api_server import ApiServer
from session_rollout.adapters.clock import ServerClock
from session_rollout.errors import AlreadyExists, Conflict, Forbidden, NotFound, RolloutError, SpecError, Unavailable

ROOT = "/apis/sessionrollout.dev/v1alpha1"
ONE = f"{ROOT}/namespaces/default/sessionrollouts/shop"
LIST = f"{ROOT}/sessionrollouts"
NAMED = {"metadata": {"name": "shop", "resourceVersion": "7"}}
DEEP = b"[" * 200_000 + b"]" * 200_000


@pytest.mark.parametrize(
    "text",
    [
        b"<html>Please log in</html>",
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"shop"',
        b"{}",
        b'{"metadata": null}',
        b'{"metadata": []}',
        b'{"metadata": {}}',
        b'{"metadata": {"name": "another", "resourceVersion": "7"}}',
        b'{"metadata": {"name": "shop", "resourceVersion": "new"}}',
        b'{"metadata": {"name": 7}}',
        DEEP,
        b'{"metadata": ' + DEEP + b"}",
    ],
    ids=lambda text: repr(text[:24]),
)
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH"])
def test_what_is_not_the_object_is_unavailable(text: bytes, method: str) -> None:
    """R2: a page of a proxy with status 200, a list for an object, an object without metadata."""
    with pytest.raises(Unavailable):
        answers.checked(text, method, ONE)


@pytest.mark.parametrize("items", ["null", "{}", "[1]", "[{}]", '[{"metadata": []}]', '[{"metadata": {"name": null}}]'])
def test_what_is_not_a_list_of_objects_is_unavailable(items: str) -> None:
    """R2: the sweep does not end, and believes nothing of it."""
    with pytest.raises(Unavailable):
        answers.checked(f'{{"metadata": {{}}, "items": {items}}}'.encode(), "GET", LIST)


def test_what_was_requested_is_returned() -> None:
    """Named objects, their subresources, lists, and objects that the API server makes up."""
    assert answers.checked(json.dumps(NAMED).encode(), "GET", ONE) == NAMED
    assert answers.checked(json.dumps(NAMED).encode(), "PUT", f"{ONE}/status") == NAMED
    assert answers.checked(b'{"metadata": {}, "items": []}', "GET", LIST) == {"metadata": {}, "items": []}
    empty = b'{"kind": "PartialObjectMetadataList", "metadata": {}, "items": null}'
    assert answers.checked(empty, "GET", LIST)["items"] == []
    assert answers.checked(b'{"metadata": {}, "status": "Success"}', "DELETE", ONE)["status"] == "Success"
    assert answers.checked(b'{"metadata": {}}', "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")


SHOP = {"name": "shop", "group": "sessionrollout.dev", "kind": "sessionrollouts"}


def status(reason: str, **fields: object) -> str:
    """A failure as the API server tells it."""
    return json.dumps({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, **fields})


@pytest.mark.parametrize(
    ("code", "body", "kind"),
    [
        (400, status("BadRequest"), SpecError),
        (403, status("Forbidden"), Forbidden),
        (403, status(""), Forbidden),  # of an admission webhook that gives no reason
        (404, status("NotFound", details=SHOP), NotFound),
        (409, status("Conflict"), Conflict),
        (409, status("AlreadyExists"), AlreadyExists),
        (410, status("Gone", details=SHOP), Unavailable),
        (422, status("Invalid"), SpecError),
        (429, status("TooManyRequests"), Unavailable),
        (500, status("InternalError"), Unavailable),
    ],
)
def test_each_status_code_has_its_error(code: int, body: str, kind: type[RolloutError]) -> None:
    assert type(answers.error_of(code, body, None, ONE)) is kind
    assert type(answers.error_of(code, body, None, f"{ONE}/status")) is kind


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 410, 422, 429, 500, 502])
@pytest.mark.parametrize(
    "body",
    [
        "<html>Please log in</html>",
        "404 page not found",
        "",
        None,
        b"\xff\xfe",
        "null",
        "[]",
        '"NotFound"',
        '{"reason": "NotFound", "details": {"name": "shop", "kind": "sessionrollouts"}}',
        '{"kind": "Error", "reason": "NotFound"}',
        DEEP,
    ],
    ids=lambda body: repr(body[:24]) if body else repr(body),
)
def test_page_of_a_proxy_says_nothing_about_objects_or_rights(code: int, body: object) -> None:
    """Whatever its code is: no rollout or action is taken for gone, no right for missing and no spec for wrong."""
    assert type(answers.error_of(code, body, None, ONE)) is Unavailable


@pytest.mark.parametrize(
    ("reason", "details"),
    [
        ("NotFound", {"details": {**SHOP, "name": "another"}}),
        ("NotFound", {"details": {"name": "shop", "kind": "namespaces"}}),
        ("NotFound", {"details": {}}),  # "the server could not find the requested resource": the CRD is missing
        ("NotFound", {"details": None}),
        ("NotFound", {"details": ["shop"]}),
        ("NotFound", {}),
        ("", {"details": SHOP}),
        ("Expired", {"details": SHOP}),
    ],
)
def test_object_is_gone_only_when_the_status_names_it(reason: str, details: dict[str, object]) -> None:
    """A CRD that is created again, an aggregated API that is absent or a webhook that found nothing ends no rollout."""
    assert type(answers.error_of(404, status(reason, **details), None, ONE)) is Unavailable
    assert type(answers.error_of(404, status(reason, **details), None, LIST)) is Unavailable


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7"}, timedelta(seconds=7)),
        ({"Retry-After": "0"}, timedelta(0)),
        ({"Retry-After": "99999999999999999999"}, answers.LONGEST_WAIT),
        (
            {"Retry-After": "Mon, 05 Jan 2026 10:00:09 GMT", "Date": "Mon, 05 Jan 2026 10:00:00 GMT"},
            timedelta(seconds=9),
        ),
        ({"Retry-After": "Mon, 05 Jan 2026 10:00:09 GMT"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 -0500", "Date": "Mon, 05 Jan 2026 10:00:00 GMT"}, None),
        ({"Retry-After": "-1"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_is_carried_in_the_error(code: int, headers: dict[str, str], wait: timedelta | None) -> None:
    error = answers.error_of(code, "", headers, ONE)
    assert isinstance(error, Unavailable)
    assert error.retry_after == wait


# --- the transport


class Server:
    """An API server that answers each request in the same way."""

    def __init__(self, respond: web.StreamResponse | str) -> None:
        self.respond, self.requests = respond, 0

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        if not isinstance(self.respond, str):
            return self.respond
        response = web.StreamResponse()
        await response.prepare(request)
        while self.respond == "endless":
            await response.write(b"x" * 2**16)
        await asyncio.Event().wait()  # trickles: the header came, the body does not
        return response

    async def ask(self, method: str = "GET", seconds: float = 5, *, leads: bool = True) -> object:
        """One request; its result."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        configuration = Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
        self.clock = ServerClock()
        api = ApiServer(ApiClient(configuration), configuration, self.clock)
        if not leads:
            api.confirm = refuse
        try:
            return await api.request(method, ONE, None if method == "GET" else {}, seconds=seconds)
        finally:
            await api.close()
            await runner.cleanup()


def refuse() -> None:
    raise Unavailable("the Lease is not held for certain")


def test_answer_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """R2: it is bounded in bytes while it is read, whatever `Content-Length` says."""
    monkeypatch.setattr(answers, "ANSWER_BYTES", 2**20)
    with pytest.raises(Unavailable, match="larger"):
        asyncio.run(Server("endless").ask())


def test_answer_that_does_not_come_is_given_up_in_time() -> None:
    """The time is for all of it: a body that trickles does not extend it."""
    with pytest.raises(Unavailable, match="TimeoutError"):
        asyncio.run(Server("trickle").ask(seconds=0.2))


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_page_with_status_404_is_no_proof_that_an_object_is_gone(method: str) -> None:
    """Over a connection: an action whose response got it is not taken for deleted, nor is a rollout."""
    page = Server(web.Response(status=404, text="<html>", content_type="text/html"))
    with pytest.raises(Unavailable) as error:
        asyncio.run(page.ask(method))
    assert not isinstance(error.value, NotFound)
    gone = Server(web.Response(status=404, text=status("NotFound", details=SHOP), content_type="application/json"))
    with pytest.raises(NotFound):
        asyncio.run(gone.ask(method))


def test_each_answer_tells_the_time_of_the_server() -> None:
    """R14: and an answer that is not from the API server does not."""
    date = "Mon, 05 Jan 2026 10:00:00 GMT"
    good = Server(web.json_response(NAMED, headers={"Date": date}))
    assert asyncio.run(good.ask()) == NAMED
    assert abs(good.clock.now() - datetime(2026, 1, 5, 10, 0, tzinfo=UTC)) < timedelta(seconds=10)
    page = Server(web.Response(text="<html>", headers={"Date": date}))
    with pytest.raises(Unavailable):
        asyncio.run(page.ask())
    assert abs(page.clock.now() - datetime.now(UTC)) < timedelta(seconds=10)


@pytest.mark.parametrize(
    "date",
    [
        "Fri, 31 Dec 9999 23:59:59 -0500",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Thu, 26 Nov 99999999999999999999 17:00:00 GMT",
        "Thu, 26 Nov 2026 17:00:00 +99999999999",
        "Mon, 01 Jan 1900 00:00:00 GMT",
        "yesterday",
    ],
)
def test_date_with_which_no_calendar_can_reckon_is_none(date: str) -> None:
    """R14: it is neither adopted, nor does it end the renewal of the Lease."""
    server = Server(web.json_response(NAMED, headers={"Date": date}))
    assert asyncio.run(server.ask()) == NAMED
    assert abs(server.clock.now() - datetime.now(UTC)) < timedelta(seconds=10)


@pytest.mark.parametrize(("method", "sent"), [("GET", 1), ("PUT", 0), ("PATCH", 0), ("POST", 0), ("DELETE", 0)])
def test_without_the_lease_nothing_is_written(method: str, sent: int) -> None:
    """Enforced where requests are sent: no caller can forget it. Reading is allowed."""
    server = Server(web.json_response(NAMED))
    if sent:
        asyncio.run(server.ask(method, leads=False))
    else:
        with pytest.raises(Unavailable, match="Lease"):
            asyncio.run(server.ask(method, leads=False))
    assert server.requests == sent
