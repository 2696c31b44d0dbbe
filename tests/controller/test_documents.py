"""Whose flag document it is. Not here: what the decision does with it (tests/core), and its deletion (test_deletion)."""

import copy
import re
from dataclasses import replace

import pytest

from controller.cluster import KEY, Cluster, Process, run
from session_rollout.api.enums import ActionReason, DecisionReason
from session_rollout.core.documents import read_document
from session_rollout.core.flags import NOBODY
from session_rollout.ports import Key

OTHER = Key(KEY.namespace, "story")


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with the document of a rollout that another name had, which users have; that rollout is gone."""
    earlier = Cluster()
    earlier.add_rollout()
    run(Process(earlier).settle)
    cluster = Cluster()
    cluster.add_rollout()
    text = re.sub('"rollout": ?"shop"', '"rollout": "story"', earlier.text)
    cluster.text, cluster.document = text, read_document(text, version=7, owner=OTHER.name)
    assert cluster.document.author == OTHER.name
    return cluster


def with_other(cluster: Cluster, flag_set: str = "") -> None:
    """The other rollout exists."""
    raw = copy.deepcopy(cluster.rollouts[KEY])
    raw["metadata"] |= {"name": OTHER.name, "uid": "uid-2"}
    raw["spec"]["flagSet"] = flag_set or raw["spec"]["flagSet"]
    cluster.rollouts[OTHER] = raw


def disable(cluster: Cluster) -> ActionReason | None:
    """Answer of an emergency."""
    cluster.add_action("u1", "EmergencyDisable", reason="drill")
    process = Process(cluster)
    process.watch_actions()
    run(process.settle)
    return cluster.answers[-1][1].reason


def test_document_of_a_rollout_that_is_gone_can_be_turned_off(cluster: Cluster) -> None:
    """Earlier versions left their label on it: it stays as it is until `Adopt`, and emergencies work."""
    assert disable(cluster) is ActionReason.ACCEPTED
    assert cluster.status.decision.reason is DecisionReason.ADOPTION_REQUIRED
    assert set(read_document(cluster.text).audiences.values()) == {NOBODY}


def test_document_of_a_rollout_that_has_another_flag_set_now_can_be_turned_off(cluster: Cluster) -> None:
    with_other(cluster, "elsewhere")
    assert disable(cluster) is ActionReason.ACCEPTED


@pytest.mark.parametrize("owner", [OTHER.name, None], ids=["labelled", "label removed"])
def test_document_of_a_rollout_that_exists_is_never_changed(cluster: Cluster, owner: str | None) -> None:
    assert cluster.document is not None
    cluster.document = before = replace(cluster.document, owner=owner)
    with_other(cluster)
    assert disable(cluster) is ActionReason.FOREIGN_DOCUMENT
    assert cluster.document == before
    assert cluster.status.decision.reason is DecisionReason.INVALID_SPEC
