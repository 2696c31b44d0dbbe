"""Deletion of a rollout: what becomes of its flags, bounded in time, and of the Jobs that run."""

import asyncio
import json
from typing import Any

import pytest

from controller.cluster import KEY, Cluster, Process, run
from session_rollout.api.protection import Protection, ProtectionKind
from session_rollout.controller import deletion
from session_rollout.core.documents import PublishedDocument, read_document
from session_rollout.errors import Forbidden, Unavailable


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "RELEASE_SECONDS", 0.05)
    monkeypatch.setattr(deletion, "POLL_SECONDS", 0)


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with one rollout and its document."""
    cluster = Cluster()
    cluster.add_rollout()
    cluster.document = PublishedDocument("sha256:own", version=1, owner="shop", author="shop")
    return cluster


def finalize(cluster: Cluster) -> Process:
    """Delete the rollout."""
    process = Process(cluster)
    process.state.has_loop = True
    run(lambda: process.deletion.finalize(cluster.rollouts[KEY]))
    return process


def test_everything_is_forgotten(cluster: Cluster) -> None:
    process = finalize(cluster)
    assert not process.state.has_loop
    assert process.deleted == [KEY]
    assert cluster.calls.count("forget uid-1") == 2, "recorder and notifier"


def test_flags_stay_by_default(cluster: Cluster) -> None:
    finalize(cluster)
    assert cluster.released == [None]


def test_policy_off_turns_every_feature_off(cluster: Cluster) -> None:
    cluster.add_rollout(deletionPolicy="Off")
    finalize(cluster)
    [text] = cluster.released
    assert text is not None
    flags: dict[str, Any] = json.loads(text)["flags"]
    assert {flags[name]["targeting"]["if"][-1] for name in ("alpha", "beta", "gamma")} == {"off"}


def test_policy_off_follows_a_document_that_the_status_does_not_know(cluster: Cluster) -> None:
    """R12: status writes were refused, and an emergency is in the document alone: nobody may turn the feature on again."""
    cluster.add_rollout(deletionPolicy="Off")
    time = cluster.time
    emergency = Protection(kind=ProtectionKind.EMERGENCY, uid="off", time=time, features=("alpha",), reason="payments fail")
    cluster.document = PublishedDocument("sha256:other", version=7, revision=41, owner="shop", protections=(emergency,))
    finalize(cluster)
    [text] = cluster.released
    assert text is not None
    released = read_document(text)
    assert released.revision == 42
    assert released.disabled == {"alpha": "payments fail"}


def test_policy_off_keeps_a_kill_by_hand_that_the_operator_has_not_seen(cluster: Cluster) -> None:
    """It was away. Whoever creates the rollout again must not turn the feature on."""
    cluster.add_rollout(deletionPolicy="Off")
    cluster.document = PublishedDocument(
        "sha256:other", version=7, owner="shop", taken_away=frozenset({"alpha"}), editor="kubectl"
    )
    finalize(cluster)
    [text] = cluster.released
    assert text is not None
    assert set(read_document(text).disabled) == {"alpha"}


@pytest.mark.parametrize("error", [Unavailable("down"), Forbidden("the namespace is being terminated")])
def test_flags_that_cannot_be_written_do_not_hold_up_the_deletion(cluster: Cluster, error: Exception) -> None:
    cluster.failures["release"] = [error]
    finalize(cluster)
    assert cluster.calls[-1] == "running"


def test_release_that_hangs_is_given_up(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(cluster, "release", hang)
    finalize(cluster)
    assert cluster.calls[-1] == "running"


def test_running_jobs_are_awaited_through_an_outage(cluster: Cluster) -> None:
    """Garbage collection would kill them."""
    cluster.running_jobs = [("shop-m-1",), Unavailable("down"), ("shop-m-1",), ()]
    finalize(cluster)
    assert cluster.calls.count("running") == 4


def test_outage_at_the_start_is_awaited_too(cluster: Cluster) -> None:
    cluster.running_jobs = [Unavailable("down"), ()]
    finalize(cluster)
    assert cluster.calls.count("running") == 2


def test_operator_that_may_not_list_jobs_does_not_wait(cluster: Cluster) -> None:
    cluster.running_jobs = [Forbidden("jobs"), ("shop-m-1",)]
    finalize(cluster)
    assert cluster.calls.count("running") == 1


def test_object_that_cannot_be_parsed_can_be_deleted(cluster: Cluster) -> None:
    cluster.rollouts[KEY]["spec"] = {"flagSet": 1}
    process = finalize(cluster)
    assert cluster.released == [None]
    assert process.deleted == [KEY]
