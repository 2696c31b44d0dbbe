"""Rollouts and actions in the API server: parsing, stale reads, answers by UID, Events. A real one is in tests/integration."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from adapters.api import Api
from core.world import spec
from session_rollout.adapters.flags import LABEL
from session_rollout.adapters.rollouts import BEHIND_SECONDS, METADATA, ApiRolloutStore, parse
from session_rollout.api.action import answer
from session_rollout.api.enums import ActionReason
from session_rollout.api.status import RolloutStatus
from session_rollout.errors import Conflict, Forbidden, SpecError, TooLarge, Unavailable
from session_rollout.ports import Key, Stored

NOW = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)
ROOT = "/apis/sessionrollout.dev/v1alpha1/namespaces/default"
PATH = f"{ROOT}/sessionrollouts/shop"
ACTION = f"{ROOT}/sessionrolloutactions/pause"
KEY = Key("default", "shop")


class Clock:
    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0


def rollout(**changes: Any) -> dict[str, Any]:
    metadata = {"namespace": "default", "name": "shop", "uid": "uid-1", "generation": 1}
    return {"metadata": metadata, "spec": {**spec().to_wire(), **changes}}


@pytest.fixture
def api() -> Api:
    """An API server with one rollout and one action."""
    api = Api()
    api.put(PATH, rollout())
    api.put(ACTION, {"metadata": {"namespace": "default", "name": "pause", "uid": "u1"}})
    return api


def read(store: ApiRolloutStore) -> Stored:
    stored = asyncio.run(store.read(KEY))
    assert stored is not None
    return stored


def test_object_that_cannot_be_parsed_has_a_problem_and_what_can_be_read() -> None:
    assert parse(rollout()).problem == ""
    stored = parse(rollout(flagSet=1))
    assert (stored.key, [feature.name for feature in stored.rollout.spec.features]) == (KEY, ["alpha", "beta", "gamma"])
    assert "spec.flagSet" in stored.problem


def test_status_of_an_object_that_cannot_be_parsed_keeps_what_was_not_read(api: Api) -> None:
    unknown = {
        "type": "Novel",
        "status": "True",
        "reason": "X",
        "message": "",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-05T10:00:00Z",
    }
    known = {**unknown, "type": "Ready", "detail": "novel"}
    api.put(
        PATH,
        {**rollout(), "status": {"novel": 1, "current": {"stage": "Novel", "phase": "one"}, "conditions": [unknown, known]}},
    )
    store = ApiRolloutStore(api)
    stored = read(store)
    assert "status." in stored.problem
    ready = stored.rollout.status.conditions[-1].updated(status="False")
    asyncio.run(store.write_status(stored, stored.rollout.status.updated(progress="some", conditions=(ready,))))
    status = api.objects[PATH]["status"]
    assert status["progress"] == "some"
    assert (status["novel"], status["current"]["stage"]) == (1, "Novel")
    assert [(each["type"], each["status"], each.get("detail")) for each in status["conditions"]] == [
        ("Ready", "False", "novel")
    ]


def test_missing_rollout() -> None:
    assert asyncio.run(ApiRolloutStore(Api()).read(KEY)) is None


def test_status_is_written_only_over_what_was_read(api: Api) -> None:
    store = ApiRolloutStore(api)
    stored = read(store)
    asyncio.run(store.write_status(stored, RolloutStatus(observed_generation=1)))
    assert api.objects[PATH]["status"]["observedGeneration"] == 1
    with pytest.raises(Conflict):
        asyncio.run(store.write_status(stored, RolloutStatus(observed_generation=2)))


def test_status_that_is_stored_without_a_field(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write succeeds: only the answer shows that the CRD is older than the operator. A dry run changes nothing."""
    store = ApiRolloutStore(api)
    stored, status = read(store), RolloutStatus(observed_generation=1, progress="some")
    assert asyncio.run(store.write_status(stored, status, dry_run=True)) is None
    assert "status" not in api.objects[PATH]
    put = api.put

    def prune(path: str, value: Mapping[str, Any]) -> dict[str, Any]:
        return put(path, {**value, "status": {key: each for key, each in value["status"].items() if key != "progress"}})

    monkeypatch.setattr(api, "put", prune)
    incomplete = asyncio.run(store.write_status(stored, status))
    assert incomplete is not None
    assert incomplete.field == "status.progress"
    assert incomplete.stored.rollout.status == status.updated(progress="")
    assert read(store).rollout.status == incomplete.stored.rollout.status


def test_read_that_is_older_than_the_last_write_is_not_taken_for_the_present(api: Api) -> None:
    """Another API server answers from an older cache."""
    store = ApiRolloutStore(api)
    old = {**api.objects[PATH]}
    asyncio.run(store.write_status(read(store), RolloutStatus(observed_generation=1)))
    api.objects[PATH] = old
    with pytest.raises(Conflict):
        read(store)


def test_read_that_stays_older_than_the_last_write_is_of_a_cluster_that_was_restored(api: Api) -> None:
    """A snapshot of etcd was restored while the process lives: rollouts continue from the state in it."""
    seconds = [0.0]
    store = ApiRolloutStore(api, monotonic=lambda: seconds[0])
    snapshot = {**api.objects[PATH]}
    asyncio.run(store.write_status(read(store), RolloutStatus(observed_generation=1)))
    api.objects[PATH] = snapshot
    seconds[0] = BEHIND_SECONDS
    restored = read(store)
    api.version = 1
    asyncio.run(store.write_status(restored, RolloutStatus(observed_generation=2)))
    assert read(store).rollout.status.observed_generation == 2


def test_rollout_that_is_created_again_is_read(api: Api) -> None:
    """Its resourceVersion may be of another cluster: it was restored from a backup."""
    store = ApiRolloutStore(api)
    asyncio.run(store.write_status(read(store), RolloutStatus(observed_generation=1)))
    del api.objects[PATH]
    assert asyncio.run(store.read(KEY)) is None
    api.version = 0
    api.put(PATH, rollout())
    assert read(store).rollout is not None


def test_rollout_is_read_from_a_list_where_the_right_to_get_it_is_missing(monkeypatch: pytest.MonkeyPatch, api: Api) -> None:
    """Guards and emergencies work without it, because the operator may list; without that right, too, the error is told."""
    asked: list[dict[str, Any]] = []

    async def find(_: str) -> None:
        raise Forbidden("may not get")

    async def request(_: str, _path: str, *, query: dict[str, Any]) -> dict[str, Any]:
        asked.append(query)
        return {"items": [api.objects[PATH]] if query["fieldSelector"] == "metadata.name=shop" else []}

    monkeypatch.setattr(api, "find", find)
    monkeypatch.setattr(api, "request", request)
    assert read(ApiRolloutStore(api)).key == KEY
    assert asyncio.run(ApiRolloutStore(api).read(Key("default", "other"))) is None
    assert len(asked) == 2

    async def refused(*_: Any, **_options: Any) -> None:
        raise Forbidden("may not list")

    monkeypatch.setattr(api, "request", refused)
    with pytest.raises(Forbidden, match="list"):
        read(ApiRolloutStore(api))


def test_lists_follow_every_page(monkeypatch: pytest.MonkeyPatch, api: Api) -> None:
    """In each namespace of the configuration, or in all of them."""
    pages: dict[str | None, tuple[str | None, list[str]]] = {None: ("next", ["a", "b"]), "next": (None, ["c"])}
    paths: list[str] = []
    accepted: set[str] = set()

    async def request(_: str, path: str, *, query: dict[str, Any], accept: str) -> dict[str, Any]:
        paths.append(path)
        accepted.add(accept)
        token, names = pages[query.get("continue")]
        metadata = {"continue": token} if token else {}
        return {
            "metadata": metadata,
            "items": [{"metadata": {"namespace": path.split("/")[-2], "name": name}} for name in names],
        }

    monkeypatch.setattr(api, "request", request)
    assert len(asyncio.run(ApiRolloutStore(api).actions()).items) == 3
    assert set(paths) == {"/apis/sessionrollout.dev/v1alpha1/sessionrolloutactions"}
    listed = asyncio.run(ApiRolloutStore(api, ("blue", "green")).listed()).items
    assert accepted == {"application/json", METADATA}
    found = [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in listed]
    assert found == [(space, name) for space in ("blue", "green") for name in "abc"]


@pytest.mark.parametrize("namespaces", [(), ("blue",)])
def test_documents_are_listed_by_their_label(monkeypatch: pytest.MonkeyPatch, api: Api, namespaces: tuple[str, ...]) -> None:
    """With their metadata alone: hundreds of documents are large. Copies have the label, too, and are told apart by their names."""
    asked = []

    async def request(_: str, path: str, *, query: dict[str, Any], accept: str) -> dict[str, Any]:
        asked.append((path, query["labelSelector"], accept))
        metadata = {"namespace": "blue", "labels": {LABEL: "shop"}}
        found = {"shop-flags": "17", "shop-flags-copy": "29"}
        items = [{"metadata": {**metadata, "name": name, "resourceVersion": version}} for name, version in found.items()]
        return {"metadata": {}, "items": items}

    monkeypatch.setattr(api, "request", request)
    listed = asyncio.run(ApiRolloutStore(api, namespaces).documents())
    assert listed.versions == {Key("blue", "shop-flags"): 17, Key("blue", "shop-flags-copy"): 29}
    assert listed.problems == {}
    place = "namespaces/blue/" if namespaces else ""
    assert asked == [(f"/api/v1/{place}configmaps", LABEL, METADATA)]


def test_namespace_that_cannot_be_listed_keeps_no_other_from_being_listed(monkeypatch: pytest.MonkeyPatch, api: Api) -> None:
    """Its rights are gone, or it is; and what is left of a list that broke off is not taken for all of it."""
    broken = {"blue"}

    async def request(_: str, path: str, *, query: dict[str, Any], **_options: Any) -> dict[str, Any]:
        space = path.split("/")[-2]
        if space in broken and query.get("continue"):
            raise Forbidden("forbidden")
        return {"metadata": {"continue": "next"} if space in broken else {}, "items": [{"metadata": {"namespace": space}}]}

    monkeypatch.setattr(api, "request", request)
    store = ApiRolloutStore(api, ("blue", "green"))
    for listed in (asyncio.run(store.listed()), asyncio.run(store.actions())):
        assert [item["metadata"]["namespace"] for item in listed.items] == ["green"]
        assert (listed.lacks("blue"), listed.lacks("green")) == (True, False)
    broken.add("green")
    with pytest.raises(Forbidden):
        asyncio.run(store.listed())


# --- actions


def write_answer(api: Api, uid: str) -> None:
    status = answer(accepted=True, reason=ActionReason.ACCEPTED, message="paused", now=NOW)
    asyncio.run(ApiRolloutStore(api).answer("default", "pause", status, uid=uid))


def test_answer_is_written_into_the_status_of_the_action(api: Api) -> None:
    write_answer(api, "u1")
    status = api.objects[ACTION]["status"]
    assert (status["accepted"], status["reason"], status["conditions"][0]["reason"]) == (True, "Accepted", "Accepted")


def test_answer_never_reaches_another_action_of_the_same_name(api: Api) -> None:
    """Deleted and created again: that one is not carried out yet, and must not look answered."""
    write_answer(api, "u0")
    assert "status" not in api.objects[ACTION]


def test_first_answer_stays(api: Api) -> None:
    """Another leader has carried it out, and to this one it no longer applies."""
    write_answer(api, "u1")
    first = api.objects[ACTION]["status"]
    refused = answer(accepted=False, reason=ActionReason.NOT_RUNNING, message="the generation has ended", now=NOW)
    asyncio.run(ApiRolloutStore(api).answer("default", "pause", refused, uid="u1"))
    assert api.objects[ACTION]["status"] == first


def test_status_that_is_no_answer_is_replaced(api: Api) -> None:
    """Somebody else has written it."""
    api.objects[ACTION]["status"] = {"message": "seen"}
    write_answer(api, "u1")
    assert api.objects[ACTION]["status"]["accepted"] is True


def test_answer_that_the_api_server_refuses_is_an_error(api: Api) -> None:
    """Another CRD: the action stays unanswered, and that must be seen."""
    api.failures["PATCH"] = [SpecError("status.reason: Unsupported value")]
    with pytest.raises(SpecError):
        write_answer(api, "u1")


def test_answer_to_an_action_that_is_gone_is_dropped(api: Api) -> None:
    del api.objects[ACTION]
    write_answer(api, "u1")
    assert ACTION not in api.objects


def test_action_is_deleted_at_most_once(api: Api) -> None:
    for _ in range(2):
        asyncio.run(ApiRolloutStore(api).delete_action("default", "pause", uid="u1"))
    assert ACTION not in api.objects


def test_action_that_was_created_again_under_the_name_is_not_deleted(api: Api) -> None:
    """The deletion may come late: it is about the one that expired, and this one may be an emergency."""
    asyncio.run(ApiRolloutStore(api).delete_action("default", "pause", uid="u0"))
    assert ACTION in api.objects


def test_namespace_that_does_not_respond_delays_the_lists_of_no_other(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are listed at the same time: the slowest one takes its own time limit and not the sum of all."""
    asked: set[str] = set()
    everybody, request = asyncio.Event(), api.request

    async def wait(method: str, path: str, *arguments: Any, **options: Any) -> Any:
        asked.add(path)
        if len(asked) == 3:
            everybody.set()
        await everybody.wait()
        if "/a/" in path:
            raise Unavailable("no response in time")
        return await request(method, path, *arguments, **options)

    monkeypatch.setattr(api, "request", wait)
    listed = asyncio.run(asyncio.wait_for(ApiRolloutStore(api, ("a", "default", "b")).actions(), 60))
    assert [item["metadata"]["uid"] for item in listed.items] == ["u1"]
    assert list(listed.problems) == ["a"]


# --- lists of objects that are as large as annotations allow


class LargeApi(Api):
    """A page of more than three of its objects is too large."""

    def __init__(self, objects: int) -> None:
        super().__init__()
        self.count, self.limits = objects, list[int]()

    async def request(self, *_: Any, query: Mapping[str, Any] | None = None, **__: Any) -> dict[str, Any]:
        assert query is not None
        start, limit = int(query.get("continue", 0)), query["limit"]
        self.limits.append(limit)
        if limit > 3:
            raise TooLarge("an answer is larger")
        metadata = {"namespace": "default", "uid": "u", "resourceVersion": "7", "labels": {LABEL: "shop"}}
        bulk = {"annotations": {"x": "x" * 10_000}, "managedFields": [{"manager": "x"}]}
        end = min(start + limit, self.count)
        items = [{"metadata": {**metadata, **bulk, "name": f"r{number}"}} for number in range(start, end)]
        return {"metadata": {"continue": str(end)} if end < self.count else {}, "items": items}


@pytest.mark.parametrize("call", ["listed", "actions"])
def test_page_that_is_too_large_is_requested_with_fewer_objects(call: str) -> None:
    """One tenant cannot keep the rollouts of all others from being listed, and nothing of what is large is kept."""
    api = LargeApi(20)
    listed = asyncio.run(getattr(ApiRolloutStore(api), call)())
    assert [item["metadata"]["name"] for item in listed.items] == [f"r{number}" for number in range(20)]
    assert all(not {"annotations", "managedFields"} & set(item["metadata"]) for item in listed.items)
    assert api.limits[-6:] == [3] * 6, "it does not try again what was too large"


def test_answer_that_is_too_large_for_one_object_is_an_outage() -> None:
    """No object is as large: whatever answers is no API server."""
    api = Api()
    api.failures["GET"] = [TooLarge("an answer is larger")] * 20
    with pytest.raises(TooLarge):
        asyncio.run(ApiRolloutStore(api).listed())
    assert len(api.failures["GET"]) > 10
