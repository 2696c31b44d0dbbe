"""Who wrote a status last, as a real API server tells it: a backup that is restored while nobody leads must not pass for ours.

Not here: what becomes of a hold then (tests/controller/test_takeover.py).
"""

from collections.abc import Iterator

import pytest

from api.connection import connected
from api.corpus import GOOD
from lab.lab import Lab
from session_rollout.adapters.api_server import ApiServer
from session_rollout.adapters.rollouts import ApiRolloutStore
from session_rollout.api.status import RolloutStatus
from session_rollout.ports import Key, Stored

COLLECTION = "/apis/sessionrollout.dev/v1alpha1/namespaces/default/sessionrollouts"


@pytest.fixture
def key(lab: Lab) -> Iterator[Key]:
    """A rollout that was just created; other tests of this lab must not find it."""
    body = {"apiVersion": "sessionrollout.dev/v1alpha1", "kind": "SessionRollout", "metadata": {"name": "written"}}
    lab.kube.request("POST", COLLECTION, {**body, "spec": GOOD})
    yield Key("default", "written")
    lab.kube.request("DELETE", f"{COLLECTION}/written")


def read(lab: Lab, key: Key) -> Stored:
    """As the operator reads it."""

    async def work(api: ApiServer) -> Stored:
        stored = await ApiRolloutStore(api).read(key)
        assert stored is not None
        return stored

    return connected(lab, work)


def write(lab: Lab, key: Key, revision: int) -> None:
    """A status of the operator."""

    async def work(api: ApiServer) -> None:
        store = ApiRolloutStore(api)
        stored = await store.read(key)
        assert stored is not None
        status = stored.rollout.status
        await store.write_status(stored, status.updated(flags=status.flags.updated(revision=revision)))

    connected(lab, work)


@pytest.mark.parametrize("by", ["kubectl-replace", "velero"])
def test_a_status_of_another_client_is_recognized(lab: Lab, key: Key, by: str) -> None:
    """Until the operator has written another one, a second later: the server tells times in seconds."""
    assert not read(lab, key).status_by_others, "nobody has written any"
    write(lab, key, 1)
    assert not read(lab, key).status_by_others
    other = {"status": RolloutStatus(state="Progressing").to_wire()}  # type: ignore[arg-type]
    path = f"{COLLECTION}/{key.name}/status"
    lab.kube.request("PATCH", path, other, content="application/merge-patch+json", fieldManager=by)
    assert read(lab, key).status_by_others
    revisions = iter(range(2, 100))

    def is_ours() -> bool:
        write(lab, key, next(revisions))
        return not read(lab, key).status_by_others

    lab.until(is_ours, 10, "a later second")


def test_a_change_of_anything_else_is_none_of_the_status(lab: Lab, key: Key) -> None:
    write(lab, key, 1)
    labels = {"metadata": {"labels": {"team": "shop"}}}
    lab.kube.request("PATCH", f"{COLLECTION}/{key.name}", labels, content="application/merge-patch+json", fieldManager="argocd")
    assert not read(lab, key).status_by_others
