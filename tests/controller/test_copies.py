"""Copies of the flag document: they have its label, and change nothing. Only `<flagSet>-flags` is the document of a rollout."""

from dataclasses import replace
from typing import Any

import pytest

from controller.cluster import DOCUMENT, KEY, Cluster, Process, run
from session_rollout.api.enums import EventReason
from session_rollout.api.parsing import rollout_of
from session_rollout.core.documents import PublishedDocument, read_document
from session_rollout.ports import Key

COPIES = {"in the namespace": Key(KEY.namespace, "shop-flags-off"), "in another namespace": Key("other", DOCUMENT.name)}
LATER = 40  # versions since the document was written


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with one rollout."""
    cluster = Cluster()
    cluster.add_rollout()
    return cluster


def killed(document: PublishedDocument) -> PublishedDocument:
    """A newer version in which somebody has turned the feature off for everybody."""
    text = '{"flags": {"alpha": {"state": "DISABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off"}}}'
    return read_document(text, version=document.version + LATER, owner=KEY.name, editor="kubectl")


def watched(cluster: Cluster, body: Any) -> None:
    """Run a test with a process that has published, and knows the document as it is."""

    async def prepared() -> None:
        process = Process(cluster)
        await process.settle()
        process.state.wake.clear()
        assert process.state.document is not None
        await body(process, process.state.document)

    run(prepared)


@pytest.mark.parametrize("place", COPIES.values(), ids=COPIES)
def test_copy_that_the_watch_delivers_is_not_the_document(cluster: Cluster, place: Key) -> None:
    """Somebody prepares an emergency edit, keeps a backup, or mirrors ConfigMaps; and deletes the copy."""

    async def body(process: Process, known: PublishedDocument) -> None:
        for deleted in (False, True):
            process.reconciler.document_changed(place, killed(known), deleted=deleted)
            assert (process.state.document, process.state.wake.is_set()) == (known, False)
        await process.settle()
        assert cluster.status.flags.disabled == ()
        assert not {EventReason.FLAG_DRIFT, EventReason.FLAGS_DISABLED} & {*cluster.events}

    watched(cluster, body)


def test_the_same_edit_of_the_document_is_an_emergency(cluster: Cluster) -> None:
    """What a copy must not do; also when the edit says that the document is another rollout's, which the watch delivers as such."""

    async def body(process: Process, known: PublishedDocument) -> None:
        cluster.document = killed(known)
        process.reconciler.document_changed(DOCUMENT, replace(cluster.document, owner="somebody"))
        assert process.state.wake.is_set()
        await process.settle()
        assert [record.feature for record in cluster.status.flags.disabled] == ["alpha"]

    watched(cluster, body)


@pytest.mark.parametrize("place", COPIES.values(), ids=COPIES)
def test_sweep_that_lists_copies_reads_nothing_again(cluster: Cluster, place: Key) -> None:
    async def body(process: Process, known: PublishedDocument) -> None:
        cluster.copies = {place: known.version + LATER, Key(KEY.namespace, "a-copy"): 1}
        await process.inbox.sweep()
        assert (process.state.document, process.state.wake.is_set()) == (known, False)
        cluster.document = None
        await process.inbox.sweep()
        assert process.state.document is None, "a copy does not stand for a document that is gone"
        assert process.state.wake.is_set()
        await process.loops.close()

    watched(cluster, body)


def test_document_of_an_earlier_flag_set_is_not_the_document(cluster: Cluster) -> None:
    """`flagSet` can be changed until something is published, and both ConfigMaps have the label: the new one is read."""

    async def body(process: Process, known: PublishedDocument) -> None:
        cluster.rollouts[KEY]["spec"]["flagSet"] = "store"
        cluster.document = None
        await process.settle()
        assert cluster.document is not None, "published where nothing is"
        process.state.wake.clear()
        now = process.state.document
        process.reconciler.document_changed(DOCUMENT, killed(known))
        assert (process.state.document, process.state.wake.is_set()) == (now, False)

    watched(cluster, body)


def test_watch_before_the_first_read_is_not_needed(cluster: Cluster) -> None:
    """The document is read then, and an event about it leaves nothing behind."""

    async def body() -> None:
        earlier = Process(cluster)
        await earlier.settle()
        assert cluster.document is not None
        process = Process(cluster)
        process.reconciler.document_changed(DOCUMENT, cluster.document)
        assert process.memory.with_document(DOCUMENT) == ()
        await process.settle()
        assert process.state.document == cluster.document

    run(body)


def test_document_that_two_rollouts_name_wakes_both(cluster: Cluster) -> None:
    """One of them waits until the other one no longer has it."""

    async def body() -> None:
        process, other, spec = Process(cluster), Key(KEY.namespace, "story"), rollout_of(cluster.rollouts[KEY]).spec
        process.state.applies(spec)
        process.memory.of(other).applies(spec)
        process.memory.of(Key("other", KEY.name)).applies(spec)
        process.reconciler.document_changed(DOCUMENT, PublishedDocument("sha256:x", version=9, owner=KEY.name))
        assert process.state.wake.is_set()
        assert process.memory.of(other).wake.is_set()
        assert not process.memory.of(Key("other", KEY.name)).wake.is_set()

    run(body)
