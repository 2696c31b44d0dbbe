"""Deletion of a rollout: what becomes of its flags, bounded in time, and of the Jobs that run."""

import asyncio
import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from controller.cluster import KEY, NOW, Cluster, Process, breathe, run
from session_rollout.api.enums import EventReason
from session_rollout.api.protection import Protection, ProtectionKind
from session_rollout.controller import deletion, requests
from session_rollout.controller.finalizers import FINALIZER
from session_rollout.controller.loops import Loop
from session_rollout.core.documents import PublishedDocument, read_document
from session_rollout.core.flags import EVERYBODY
from session_rollout.errors import Forbidden, SpecError, Unavailable
from session_rollout.ports import Key


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "RELEASE_SECONDS", 0.05)
    monkeypatch.setattr(deletion, "PATIENT_SECONDS", 0.1)
    monkeypatch.setattr(requests, "RESPONSE_SECONDS", 0.05)


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with one rollout and its document."""
    cluster = Cluster()
    cluster.add_rollout()
    cluster.document = PublishedDocument("sha256:own", version=1, owner="shop", author="shop")
    return cluster


def finalize(cluster: Cluster, attempts: int = 10_000) -> Process:
    """Delete the rollout, and try so often to end its deletion."""
    process, raw = Process(cluster), cluster.rollouts[KEY]
    raw["metadata"] |= {"deletionTimestamp": NOW.isoformat(), "finalizers": [FINALIZER]}
    process.state.has_loop = True

    async def body() -> None:
        for _ in range(attempts):
            await breathe()
            if await process.loops._end(KEY, Loop(raw)):
                return

    run(body)
    cluster.rollouts[KEY] = raw
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
    assert {flags[name]["targeting"]["if"][-1] for name in ("alpha", "beta", "gamma")} == {"off-chosen"}


@pytest.mark.parametrize("policy", ["Off", "Retain"])
def test_policy_off_turns_everything_off_before_each_attempt_to_end(cluster: Cluster, policy: str) -> None:
    """The removal of the finalizer was refused, and somebody has given features back since."""
    cluster.add_rollout(deletionPolicy=policy)

    def give() -> None:
        cluster.document = replace(
            users_have_it(author="shop"), version=cluster.document.version + 1 if cluster.document else 1
        )

    give()
    cluster.failures["finalizer False"] = [Forbidden("a policy")]
    cluster.hooks["finalizer False"] = give
    finalize(cluster)
    assert cluster.document is not None
    assert cluster.document.gives_something is (policy == "Retain")
    assert cluster.calls.count("running") == 1


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


def test_policy_off_keeps_when_users_got_the_features_first(cluster: Cluster) -> None:
    """Whoever creates the rollout again must not take the weeks with the features for weeks without them."""
    cluster.add_rollout(deletionPolicy="Off")
    cluster.document = users_have_it(author="shop", first_published={"alpha": cluster.time})
    finalize(cluster)
    assert cluster.document.first_published == {"alpha": cluster.time}


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


def users_have_it(**known: Any) -> PublishedDocument:
    """A document that gives features, with these labels and this author."""
    return replace(PublishedDocument("sha256:other", version=7, audiences={"alpha": EVERYBODY}, labelled=False), **known)


@pytest.mark.parametrize(
    "known",
    [{"author": "shop"}, {"author": "earlier"}, {"author": "shop", "managed": False}, {}, {"owner": "earlier"}],
    ids=str,
)
def test_policy_off_turns_off_a_document_without_its_label(cluster: Cluster, known: dict[str, Any]) -> None:
    """It was kept for `Adopt`, or somebody has removed the label: no other rollout that exists has it."""
    cluster.add_rollout(deletionPolicy="Off")
    cluster.document = users_have_it(**known)
    finalize(cluster)
    assert not cluster.document.gives_something
    assert EventReason.FLAGS_NOT_RELEASED not in cluster.events
    finalize(cluster)
    assert len(cluster.released) == 1, "repeating it changes nothing"


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("policy", ["Off", "Retain"])
def test_policy_off_says_so_when_nobody_can_tell_whose_document_it_is(
    cluster: Cluster, policy: str, *, published: bool
) -> None:
    """Features may still be on: never silence."""
    raw = cluster.add_rollout(deletionPolicy=policy)
    raw["status"] = {"flags": {"publishedSha256": "sha256:own"}} if published else {}
    cluster.document = users_have_it(managed=False)
    finalize(cluster)
    assert cluster.released == []
    assert (EventReason.FLAGS_NOT_RELEASED in cluster.events) is (published or policy == "Off")


@pytest.mark.parametrize("published", [True, False])
def test_document_of_another_rollout_that_exists_is_left_to_it(cluster: Cluster, *, published: bool) -> None:
    """D18. One that has published to it says that its features may still be on."""
    raw = cluster.add_rollout(deletionPolicy="Off")
    other = copy.deepcopy(raw)
    other["metadata"]["name"] = "other"
    cluster.rollouts[Key("default", "other")] = other
    raw["status"] = {"flags": {"publishedSha256": "sha256:own"}} if published else {}
    cluster.document = users_have_it(author="other")
    finalize(cluster)
    assert cluster.released == []
    assert (EventReason.FLAGS_NOT_RELEASED in cluster.events) is published


@pytest.mark.parametrize("error", [Unavailable("down"), Forbidden("the namespace is being terminated")])
def test_flags_that_cannot_be_written_do_not_hold_up_the_deletion(cluster: Cluster, error: Exception) -> None:
    cluster.failures["release"] = [error]
    finalize(cluster)
    assert "running" in cluster.calls


@pytest.mark.parametrize(
    ("error", "attempts"), [(Forbidden("terminating"), 1), (SpecError("a policy"), 1), (Unavailable("slow"), 4)]
)
def test_slow_release_gets_more_time_than_a_refused_one(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, error: Exception, attempts: int
) -> None:
    """R4: a refusal in a namespace that is being deleted is for good; a slow webhook admits the write later."""
    monkeypatch.setattr(deletion, "RELEASE_SECONDS", 0)
    monkeypatch.setattr(deletion, "PATIENT_SECONDS", 15)
    cluster.failures["release"] = [error] * 3
    finalize(cluster)
    assert cluster.calls.count("release") == attempts
    assert (EventReason.FLAGS_NOT_RELEASED in cluster.events) is (attempts == 1)


def test_release_that_hangs_is_given_up(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(cluster, "release", hang)
    finalize(cluster)
    assert "running" in cluster.calls


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
