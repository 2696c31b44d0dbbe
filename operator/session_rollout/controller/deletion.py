"""Deletion of a rollout: its flags are kept or turned off, as `deletionPolicy` says; then a running migration ends.

Until the object is gone, its loop goes on, and decides only what protects users (`core.deleted`): nothing here waits. What is left to do
is tried again between two decisions (`controller.loops`). Repeating it changes nothing, even after a crash.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from session_rollout.api.enums import EventReason
from session_rollout.api.protection import ProtectionKind
from session_rollout.api.rollout import DeletionPolicy, SessionRollout
from session_rollout.controller.documents import Documents
from session_rollout.controller.finalizers import FINALIZER, finalizers_of_others, has_finalizer
from session_rollout.controller.memory import Memory
from session_rollout.controller.state import RolloutState
from session_rollout.core.documents import PublishedDocument, read_document
from session_rollout.core.first_publish import first_published
from session_rollout.core.flags import NOBODY, FlagSource, audiences, compile_document, config_map_name, disabled_features
from session_rollout.core.publication import protection_uids
from session_rollout.core.refusals import FINALIZER_EFFECT
from session_rollout.errors import Forbidden, RolloutError, SpecError, Unavailable
from session_rollout.ports import Key, Ports, Stored

log = logging.getLogger(__name__)
RELEASE_SECONDS: Final = 30.0  # for a write that the API server refuses
PATIENT_SECONDS: Final = 120.0  # for one that it does not answer: attempts of 10, 20 and 35 seconds, with pauses
SUCCESSOR_SECONDS: Final = 5.0  # for either, while another object of the same name waits for its loop
RELEASE: Final = "the release of the flag document"
RUNNING: Final = "RunningJobs"  # the effect in `status.refusals`
UNKNOWN_JOBS: Final = ("Jobs, which cannot be listed",)
Names = tuple[str, ...]


@dataclass(frozen=True)
class Awaited:
    """What a deletion waits for: the Jobs that run, and finalizers, its own as long as it is there."""

    jobs: Names = ()
    finalizers: Names = ()
    is_over: bool = False  # nothing is left to wait for but its own finalizer, whose removal may be tried
    is_gone: bool = False  # there is no object any more


GONE: Final = Awaited(finalizers=(FINALIZER,), is_gone=True)


@dataclass(frozen=True)
class Released:
    """What a release of the document has done."""

    left: str = ""  # why it was left with features on
    replaced: PublishedDocument | None = None  # the document that was written over; None: nothing had to be written


class Remains:
    """What a rollout leaves behind: its flag document, and the Jobs that run."""

    def __init__(self, ports: Ports) -> None:
        self._ports, self._documents = ports, Documents(ports)

    async def release(self, rollout: SessionRollout) -> Released:
        """Let go of the document, or turn everything off in it, as the policy says."""
        document = await self._documents.read(rollout)
        if document is None:
            return Released()
        if not document.belongs_to(rollout.name):
            return Released(_left(rollout, document))
        text = _all_off(rollout, document) if rollout.spec.deletion_policy is DeletionPolicy.OFF else None
        if document.managed and document.owner is None and (text is None or _gives_the_same(document, text)):
            return Released()  # it was released before
        await self._ports.flags.release(rollout, config_map_name(rollout.spec.flag_set), document, text)
        return Released(replaced=document)

    async def keep_off(self, stored: Stored, state: RolloutState) -> None:
        """Turn everything off while the deletion waits, again whenever another client has written the document.

        The watch does not deliver a document without its label, so it is read each time. What is remembered is only whether it was off
        when it was read last.
        """
        rollout, before = stored.rollout, state.released
        state.released = False  # unknown, until it was read
        try:
            released = await self.release_in_time(rollout, state)
        except RolloutError as error:
            log.warning("the flag document is not released yet: %s", error, extra=stored.key.fields)
            return
        state.released = not released.left
        if released.replaced is None:
            return
        state.forget_document()  # the decision reads what is there now
        if before:
            by = f" by {released.replaced.editor}" if released.replaced.editor else ""
            message = f"{config_map_name(rollout.spec.flag_set)} was modified{by} during the deletion; every feature is turned off again"
            log.warning("%s", message, extra=stored.key.fields)
            self._ports.events.emit(rollout, EventReason.FLAG_DRIFT, message)

    async def release_in_time(self, rollout: SessionRollout, state: RolloutState) -> Released:
        """Release it. A write that hangs goes on in the background, and delays no emergency: it raises Unavailable meanwhile."""
        return await state.releases.take(RELEASE, partial(self.release, rollout), state.wake_soon)

    async def awaited(self, stored: Stored, state: RolloutState) -> Awaited:
        """What the deletion waits for. Flags that it turns off do not wait for it, and come first."""
        if stored.rollout.spec.deletion_policy is DeletionPolicy.OFF:
            await self.keep_off(stored, state)
        others = finalizers_of_others(stored)
        if not has_finalizer(stored):
            state.succeeded(FINALIZER_EFFECT)
            return Awaited((), others or (FINALIZER,), is_over=not others)
        jobs = () if state.finalized else await self._running_or_unknown(stored, state)
        state.awaits_removal = not jobs and state.until_removal > 0
        return Awaited(jobs, (FINALIZER, *others), is_over=not (jobs or state.awaits_removal))

    async def _running_or_unknown(self, stored: Stored, state: RolloutState) -> Names:
        """While nobody can tell whether Jobs run, the deletion waits, and users are protected."""
        try:
            jobs = await self.running(stored.rollout, state)
        except RolloutError as error:
            log.warning("the deletion waits, because its Jobs cannot be listed: %s", error, extra=stored.key.fields)
            state.refused(RUNNING, error, self._ports.clock.now())
            return UNKNOWN_JOBS
        state.succeeded(RUNNING)
        return jobs

    async def running(self, rollout: SessionRollout, state: RolloutState) -> Names:
        """Names of the Jobs that the deletion waits for. Raises Unavailable if they cannot be listed within a moment."""
        try:
            return await state.releases.take(RUNNING, partial(self._ports.jobs.running, rollout), state.wake_soon)
        except Forbidden as error:
            # Without the permission to list Jobs the operator cannot have created one.
            log.warning("deletion does not wait for migrations: %s", error, extra=Key(rollout.namespace, rollout.name).fields)
            return ()

    def leave(self, rollout: SessionRollout, why: str) -> None:
        """Say that the deletion continues although the document is not what it should be."""
        message = f"the flag document {config_map_name(rollout.spec.flag_set)} was left as it is: {why}"
        log.warning("deletion continues: %s", message, extra=Key(rollout.namespace, rollout.name).fields)
        self._ports.events.emit(rollout, EventReason.FLAGS_NOT_RELEASED, message)


def patience(state: RolloutState, error: Exception) -> float:
    """Seconds for which a write of the document that failed is still repeated, before the deletion continues without it.

    In a namespace that is being deleted the write may be refused for good, and the deletion would never finish. An answer that does
    not come is no refusal: an admission webhook may take half a minute, for which the publisher waits longer with each attempt.
    """
    if state.release_began is None:
        state.release_began = time.monotonic()
    seconds = RELEASE_SECONDS if isinstance(error, Forbidden | SpecError) else PATIENT_SECONDS
    return state.release_began + (min(seconds, SUCCESSOR_SECONDS) if state.has_successor else seconds) - time.monotonic()


class Deletion:
    """Ends deletions."""

    def __init__(
        self, ports: Ports, memory: Memory, parse: Callable[[Mapping[str, Any]], Stored], on_deleted: Callable[[Key], None]
    ) -> None:
        self._ports, self._memory, self._on_deleted = ports, memory, on_deleted
        self.parse, self.remains = parse, Remains(ports)

    async def finish(self, stored: Stored, state: RolloutState, *, gone: bool = False) -> None:
        """Do once what is left to do before the object may go. Raises RolloutError while something is.

        Only flags that the policy turns off are turned off again, if somebody has given them back since.
        """
        rollout = stored.rollout
        if (state.finalized or state.has_successor) and rollout.spec.deletion_policy is not DeletionPolicy.OFF:
            return  # what its successor finds has the right label
        try:
            left = (await self.remains.release_in_time(rollout, state)).left
        except RolloutError as error:
            if patience(state, error) > 0:
                raise
            left = str(error)
        if not state.finalized:
            if left:
                self.remains.leave(rollout, left)
            if not gone and (jobs := await self.remains.running(rollout, state)):
                raise Unavailable(f"waiting for {', '.join(jobs)}")
            state.finalized = True

    def forget(self, key: Key, uid: str) -> None:
        """The object is gone, or is about to be."""
        self._memory.end(key)
        self._on_deleted(key)
        self._ports.recorder.forget(uid)
        self._ports.notifier.forget(uid)


def _left(rollout: SessionRollout, document: PublishedDocument) -> str:
    """Why a document that is not the rollout's stays as it is; empty if the rollout has nothing to turn off in it."""
    off = rollout.spec.deletion_policy is DeletionPolicy.OFF
    published = rollout.status.flags.published_sha256 is not None
    if document.owner is not None:
        # With the same `flagSet`, whose users keep it.
        return f"it belongs to rollout {document.owner}" if off and published else ""
    return "neither its labels nor its text say that it belongs to the rollout" if off or published else ""


def _gives_the_same(document: PublishedDocument, text: str) -> bool:
    new = read_document(text)
    return (new.audiences, new.disabled) == (document.audiences, document.disabled)


def _all_off(rollout: SessionRollout, published: PublishedDocument) -> str:
    """The document with every feature off, which follows the published one, also those that only that one has.

    Emergencies stay in it, also those that only the document knows because the status was refused or the operator was away: a rollout
    that is created again must not lift them.
    """
    news = (known for known in published.protections if known.uid not in protection_uids(rollout.status))
    unstored = {name: known.reason for known in news if known.kind is ProtectionKind.EMERGENCY for name in known.features}
    by_hand = dict.fromkeys(published.taken_away, "an edit of the flag document turned it off")
    disabled = {**by_hand, **published.disabled, **unstored, **disabled_features(rollout.spec, rollout.status)}
    nobody = dict.fromkeys([*audiences(rollout.spec, rollout.status), *published.audiences, *disabled], NOBODY)
    revision = max(rollout.status.flags.revision, published.revision) + 1
    metadata: dict[str, str | int] = {"rollout": rollout.name, "rolloutGeneration": rollout.generation, "revision": revision}
    times = first_published(rollout.spec, rollout.status, published)
    return compile_document(FlagSource(rollout.spec.flag_set, rollout.namespace, nobody, disabled, metadata, times)).text
