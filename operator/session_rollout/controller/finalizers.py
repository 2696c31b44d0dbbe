"""The finalizer of a rollout: only where its deletion has to wait for the operator.

It waits for flags that `deletionPolicy: Off` turns off, and for Jobs, which garbage collection would terminate. Any other rollout
has no finalizer, so that its deletion, and that of its namespace, never waits for an operator that is away or has lost its rights.
"""

import logging
from functools import partial
from typing import Final

from session_rollout.api import GROUP
from session_rollout.api.rollout import DeletionPolicy, SessionRollout
from session_rollout.controller.backoff import delay
from session_rollout.controller.state import RolloutState
from session_rollout.core.inputs import has_jobs
from session_rollout.core.refusals import FINALIZER_EFFECT
from session_rollout.errors import Conflict, NotFound, RolloutError
from session_rollout.ports import Ports, Stored

log = logging.getLogger(__name__)
FINALIZER: Final = f"{GROUP}/finalizer"


def needs_finalizer(rollout: SessionRollout) -> bool:
    """Whether there is something to do when this rollout is deleted that cannot be done afterwards."""
    return has_jobs(rollout.spec) or rollout.spec.deletion_policy is DeletionPolicy.OFF


def has_finalizer(stored: Stored) -> bool:
    """Whether the object has the operator's finalizer."""
    return FINALIZER in stored.raw["metadata"].get("finalizers", [])


def finalizers_of_others(stored: Stored) -> tuple[str, ...]:
    """What keeps the object besides the operator."""
    return tuple(name for name in stored.raw["metadata"].get("finalizers", []) if name != FINALIZER)


class Finalizers:
    """Adds and removes the finalizer."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def keep(self, stored: Stored, state: RolloutState) -> Stored:
        """The object with the finalizer that its spec needs. It is tried again after a refusal, which decisions know (`core.refusals`)."""
        wanted = needs_finalizer(stored.rollout) or (bool(stored.problem) and has_finalizer(stored))
        try:
            if has_finalizer(stored) is not wanted:
                change = partial(self._ports.store.set_finalizer, stored, FINALIZER, present=wanted)
                stored = await state.writes.take("the finalizer", change, state.wake_soon)
        except Conflict:
            raise
        except RolloutError as error:
            self._refused(stored, state, error)
        else:
            state.succeeded(FINALIZER_EFFECT)
        return stored

    def _refused(self, stored: Stored, state: RolloutState, error: RolloutError) -> None:
        known = state.refusals.get(FINALIZER_EFFECT)
        state.refused(FINALIZER_EFFECT, error, self._ports.clock.now())
        if known is None or known.message != state.refusals[FINALIZER_EFFECT].message:
            log.warning("cannot change the finalizer: %s", error, extra=stored.key.fields)

    async def remove(self, stored: Stored, state: RolloutState) -> bool:
        """Let the deletion continue; whether the finalizer is gone. Raises Conflict."""
        try:
            if has_finalizer(stored):
                change = partial(self._ports.store.set_finalizer, stored, FINALIZER, present=False)
                await state.writes.take("the removal of the finalizer", change, state.wake_soon)
        except Conflict:
            raise
        except NotFound:
            return True
        except RolloutError as error:
            self._refused(stored, state, error)
            state.removal_refused(delay(state.removal_failures + 1, getattr(error, "retry_after", None)))
            return False
        return True
