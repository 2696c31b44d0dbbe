"""The loops: one task for each rollout, from its creation to the end of its deletion.

Kopf only delivers events. Its daemons are not used: one whose creation event was lost is never started, and one whose finalizer could
not be removed, because a policy or a missing right refused it, is forgotten until the next event. Here the list of every sweep
starts the loops that are missing, and the end of a rollout is repeated until it succeeds: between two attempts, its loop protects users.
"""

import asyncio
import logging
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from session_rollout.controller.backoff import delay
from session_rollout.controller.deletion import Deletion, patience
from session_rollout.controller.finalizers import Finalizers
from session_rollout.controller.memory import Memory
from session_rollout.controller.reconciler import Reconciler
from session_rollout.controller.requests import read_soon
from session_rollout.controller.state import RolloutState
from session_rollout.errors import RolloutError
from session_rollout.ports import Key, Ports, Stored
from session_rollout.tasks import cause_of, watched

log = logging.getLogger(__name__)
GRACE_SECONDS: Final = 1.5  # for reconciliations that are under way when the process ends
LEAVE_SECONDS: Final = 2.0  # longest pause between attempts to protect the users of a rollout that is gone
Object = Mapping[str, Any]


@dataclass
class Loop:
    """The task of one rollout, and the object as it was last seen."""

    raw: Object
    task: asyncio.Task[None] | None = None
    successor: Object | None = None  # another object that was created under the same name
    problem: str = ""  # why the last attempt to end its deletion failed

    @property
    def uid(self) -> str:
        """UID of the object."""
        return str(self.raw["metadata"]["uid"])


class Loops:
    """All loops of this process."""

    def __init__(self, reconciler: Reconciler, deletion: Deletion, memory: Memory, ports: Ports) -> None:
        self._reconciler, self._deletion, self._memory, self._store = reconciler, deletion, memory, ports.store
        self._finalizers = Finalizers(ports)
        self._loops: dict[Key, Loop] = {}
        self._stopped = asyncio.Event()

    def rollout_changed(self, key: Key, raw: Object, *, deleted: bool = False) -> None:
        """The watch delivered a rollout."""
        loop = self._loops.get(key)
        if loop is None:
            if not deleted:
                self._start(key, raw)
            return
        state, only_status = self._memory.of(key), not deleted and _revision(raw) == _revision(loop.raw)
        if loop.uid == raw["metadata"]["uid"]:
            loop.raw = raw
            state.deleted |= deleted
        elif not deleted:
            loop.successor, state.has_successor = raw, True
        if only_status:
            state.contest.wake(state.wake)
        else:
            state.wake.set()

    def listed(self, objects: Mapping[Key, Object], unlisted: Container[str] = ()) -> None:
        """All rollouts as they were listed: start the loops that are missing, and wake those of rollouts that are gone.

        Of namespaces that could not be listed, nobody knows what is gone.
        """
        for key, raw in objects.items():
            if key not in self._loops:
                self._start(key, raw)
        for key, loop in self._loops.items():
            if key.namespace in unlisted:
                continue
            uid = objects[key]["metadata"]["uid"] if key in objects else None
            if uid != loop.uid or "deletionTimestamp" in objects[key]["metadata"]:
                self._memory.of(key).wake.set()

    async def close(self) -> None:
        """Stop all loops: those that are reconciling may complete that within a moment."""
        self._stopped.set()
        tasks = [loop.task for loop in self._loops.values() if loop.task is not None]
        if not tasks:
            return
        _, pending = await asyncio.wait(tasks, timeout=GRACE_SECONDS)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    def _start(self, key: Key, raw: Object) -> None:
        metadata = raw["metadata"]
        if self._stopped.is_set() or ("deletionTimestamp" in metadata and not metadata.get("finalizers")):
            return
        state = self._memory.of(key)
        state.has_loop, state.deleted, state.uid, state.known = True, False, metadata["uid"], "status" in raw
        loop = self._loops[key] = Loop(raw)
        loop.task = watched(self._live(key, loop), f"loop of {key.namespace}/{key.name}", may_end=True)

    async def _live(self, key: Key, loop: Loop) -> None:
        try:
            ended = False
            while not (ended or self._stopped.is_set()):
                await self._reconciler.run(key, self._stopped)
                ended = not self._stopped.is_set() and await self._end(key, loop)
        finally:
            del self._loops[key]
        if loop.successor is not None:
            self._start(key, loop.successor)

    async def _end(self, key: Key, loop: Loop) -> bool:
        """Try once to end its deletion. False while something is left to do: its loop protects users until that is tried again."""
        state = self._memory.of(key)
        state.expect_nothing()
        try:
            with state.working():
                stored = await read_soon(partial(self._store.read, key))
                if stored is not None and stored.uid == loop.uid:
                    return await self._finish(stored, loop)
                state.has_successor |= stored is not None
        except Exception as error:  # noqa: BLE001 - of this rollout: it must not end the loops of the others
            _log_failed_end(key, loop, error)
            state.removal_refused(delay(state.removal_failures + 1, getattr(error, "retry_after", None)))
            return False
        await self._leave(key, loop)
        self._deletion.forget(key, loop.uid)
        return True

    async def _finish(self, stored: Stored, loop: Loop) -> bool:
        """Release what belongs to a deleted rollout, and then its finalizer."""
        if not stored.deleting:
            return True  # what told of its deletion was wrong: the next sweep starts its loop again
        state = self._memory.of(stored.key)
        await self._deletion.finish(stored, state)
        if not await self._finalizers.remove(stored, state):
            return False
        self._deletion.forget(stored.key, loop.uid)
        return True

    async def _leave(self, key: Key, loop: Loop) -> None:
        """The object is gone, because it had no finalizer, and another one may have its name: write what it has left undone."""
        state, failures = self._memory.of(key), 0
        stored = self._last(state, loop)
        while not self._stopped.is_set():
            try:
                with state.working():
                    await self._reconciler.protect_last(stored, state)
                    await self._deletion.finish(stored, state, gone=True)
                    return
            except Exception as error:  # noqa: BLE001 - as above
                _log_failed_end(key, loop, error)
                failures += 1
                left = patience(state, error)
                if left <= 0:
                    self._deletion.remains.leave(stored.rollout, str(error))
                    return
                await asyncio.sleep(min(delay(failures, getattr(error, "retry_after", None)), left, LEAVE_SECONDS))

    def _last(self, state: RolloutState, loop: Loop) -> Stored:
        """The object as it was last: an edit shortly before its deletion was delivered, and no decision has seen it."""
        last = state.last
        if last is not None and _generation(loop.raw) <= _generation(last.raw):
            return last
        seen = self._deletion.parse(loop.raw)
        if last is None:
            return seen
        return last if seen.problem else replace(seen, rollout=seen.rollout.updated(status=last.rollout.status))


def _generation(raw: Object) -> int:
    return int(raw["metadata"].get("generation", 0))


def _revision(raw: Object) -> tuple[Any, ...]:
    """What differs between two versions of an object of which more than the status, its labels or its annotations has changed."""
    return tuple(raw["metadata"].get(name) for name in ("uid", "generation", "deletionTimestamp", "finalizers"))


def _log_failed_end(key: Key, loop: Loop, error: Exception) -> None:
    if loop.problem != str(error):
        if isinstance(error, RolloutError):
            log.warning("the deletion is repeated: %s", error, extra=key.fields)
        else:
            log.error("a deletion failed, and is repeated", exc_info=error, extra={**key.fields, **cause_of(error)})
    loop.problem = str(error)
