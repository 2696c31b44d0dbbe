"""Deletion of a rollout: its flags are kept or turned off, as `deletionPolicy` says; then a running migration ends.

While Jobs run, the loop of the rollout goes on, and decides only what protects users (`core.deleted`). It then removes the finalizer
when `finalize` returns (`controller.loops`). Repeating it changes nothing, even after a crash.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from session_rollout.api.enums import EventReason
from session_rollout.api.protection import ProtectionKind
from session_rollout.api.rollout import DeletionPolicy, SessionRollout
from session_rollout.controller.backoff import delay
from session_rollout.controller.documents import Documents
from session_rollout.controller.memory import Memory
from session_rollout.controller.state import RolloutState
from session_rollout.core.documents import PublishedDocument, read_document
from session_rollout.core.first_publish import first_published
from session_rollout.core.flags import NOBODY, FlagSource, audiences, compile_document, config_map_name, disabled_features
from session_rollout.core.publication import protection_uids
from session_rollout.errors import Forbidden, RolloutError, SpecError, Unavailable
from session_rollout.ports import Key, Ports, Stored

log = logging.getLogger(__name__)
RELEASE_SECONDS: Final = 30.0  # for a write that the API server refuses
PATIENT_SECONDS: Final = 120.0  # for one that it does not answer: attempts of 10, 20 and 35 seconds, with pauses
ATTEMPT_SECONDS: Final = 0.01
POLL_SECONDS: Final = 2.0


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
            released = await self.release(rollout)
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

    async def running(self, rollout: SessionRollout) -> tuple[str, ...]:
        """Names of the Jobs that the deletion waits for."""
        try:
            return await self._ports.jobs.running(rollout)
        except Forbidden as error:
            # Without the permission to list Jobs the operator cannot have created one.
            log.warning("deletion does not wait for migrations: %s", error, extra=Key(rollout.namespace, rollout.name).fields)
            return ()


class Deletion:
    """Finalizes rollouts."""

    def __init__(
        self, ports: Ports, memory: Memory, parse: Callable[[Mapping[str, Any]], Stored], on_deleted: Callable[[Key], None]
    ) -> None:
        self._ports, self._memory, self._parse, self._on_deleted = ports, memory, parse, on_deleted
        self._remains = Remains(ports)

    async def finalize(self, raw: Mapping[str, Any]) -> None:
        """Release what belongs to the rollout, bounded in time, and wait for its Jobs; once, however often its finalizer is refused.

        Only flags that the policy turns off are turned off again, if somebody has given them back since.
        """
        stored = self._parse(raw)
        state = self._memory.of(stored.key)
        if not state.finalized:
            await self._release_flags(stored.key, stored.rollout)
            await self._wait_for_jobs(stored.key, stored.rollout)
            state.finalized = True
        elif stored.rollout.spec.deletion_policy is DeletionPolicy.OFF:
            await self._remains.keep_off(stored, state)

    def forget(self, key: Key, uid: str) -> None:
        """The object is gone, or is about to be."""
        self._memory.end(key)
        self._on_deleted(key)
        self._ports.recorder.forget(uid)
        self._ports.notifier.forget(uid)

    async def _release_flags(self, key: Key, rollout: SessionRollout) -> None:
        """Release the document, again and again: one refused or slow write must not leave features on."""
        left = await self._repeat_release(rollout)
        if not left:
            return
        message = f"the flag document {config_map_name(rollout.spec.flag_set)} was left as it is: {left}"
        log.warning("deletion continues: %s", message, extra=key.fields)
        self._ports.events.emit(rollout, EventReason.FLAGS_NOT_RELEASED, message)

    async def _repeat_release(self, rollout: SessionRollout) -> str:
        """Why the document was left as it is; empty if it was not.

        In a namespace that is being deleted the write may be refused for good, and the deletion would never finish. An answer that does
        not come is no refusal: an admission webhook may take half a minute, for which the publisher waits longer with each attempt.
        """
        begin, failures = time.monotonic(), 0
        while True:
            remaining = begin + PATIENT_SECONDS - time.monotonic()
            try:
                released = await asyncio.wait_for(self._remains.release(rollout), max(remaining, ATTEMPT_SECONDS))
            except (RolloutError, TimeoutError) as error:
                seconds = RELEASE_SECONDS if isinstance(error, Forbidden | SpecError) else PATIENT_SECONDS
                remaining = begin + seconds - time.monotonic()
                if remaining <= 0:
                    return str(error) or "no response in time"
            else:
                return released.left
            failures += 1
            await asyncio.sleep(min(delay(failures), remaining))

    async def _wait_for_jobs(self, key: Key, rollout: SessionRollout) -> None:
        """Wait for running Jobs, because garbage collection would terminate them.

        Removing their owner references instead would require a permission that few clusters grant.
        """
        logged: tuple[str, ...] = ()
        while True:
            try:
                running = await self._remains.running(rollout)
            except Unavailable:
                # While the API server does not respond, the object could not be deleted either.
                running = logged
            else:
                if not running:
                    # Nothing runs, or all of it has ended: garbage collection may delete the Jobs.
                    return
            if running != logged:
                log.info("deletion waits for %s", ", ".join(running), extra=key.fields)
            logged = running
            await asyncio.sleep(POLL_SECONDS)


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
