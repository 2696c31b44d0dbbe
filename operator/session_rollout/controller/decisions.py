"""Makes decisions: gathers what one depends on, lets that decide which is made for the object as it is, and survives its exceptions."""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial

from session_rollout.controller.deletion import Awaited
from session_rollout.controller.downtime import Downtime
from session_rollout.controller.gather import Gatherer
from session_rollout.controller.memory import Memory
from session_rollout.controller.state import RolloutState
from session_rollout.controller.unconfirmed import Made
from session_rollout.core.decide import decide
from session_rollout.core.deleted import decide_deleted
from session_rollout.core.fallback import stall_after, stall_unparsed
from session_rollout.core.observed import Decision, Observed
from session_rollout.ports import Ports, Stored
from session_rollout.tasks import place_of

log = logging.getLogger(__name__)
Decider = Callable[[Observed, datetime], Decision]


class Decisions:
    """Makes the decisions of all rollouts of this process."""

    def __init__(self, ports: Ports, memory: Memory, downtime: Downtime) -> None:
        self._clock, self._gatherer = ports.clock, Gatherer(ports, memory, downtime)

    async def make(self, stored: Stored, state: RolloutState, awaited: Awaited | None = None) -> Made:
        """The decision about the object; while it is being deleted, about what that waits for."""
        rollout = stored.rollout.updated(status=state.base(stored.rollout.status, stored.rollout.generation))
        plain = bool(stored.problem) or (awaited is not None and awaited.is_gone)
        gather = self._gatherer.gather_published if plain else self._gatherer.gather
        observed = await gather(rollout, stored.rollout.status, state)
        now = self._clock.now()
        decision = _decide(observed, now, _decider(stored, state, awaited))
        state.next_decision = decision.next_reconcile.total_seconds()
        state.last = replace(stored, rollout=rollout.updated(status=decision.status))
        return Made(observed, now, decision, replayable=not (stored.problem or awaited))


def _decider(stored: Stored, state: RolloutState, awaited: Awaited | None) -> Decider:
    """What decides about the object as it is."""
    if stored.problem:
        return partial(stall_unparsed, problem=stored.problem)
    if awaited is None:
        return decide
    return partial(decide_deleted, jobs=awaited.jobs, finalizers=awaited.finalizers, released=state.released is True)


def _decide(observed: Observed, now: datetime, decider: Decider) -> Decision:
    """The decision; after an exception that nobody foresaw, emergencies and a stall that says where it came from."""
    try:
        return decider(observed, now)
    except Exception as error:
        rollout = observed.rollout
        log.exception("deciding failed", extra={"namespace": rollout.namespace, "rollout": rollout.name})
        cause = f"{type(error).__name__} in {place_of(error)}"
        try:
            return stall_after(observed, now, cause)
        except Exception:  # noqa: BLE001 - by one of the actions, and the others are not known to be harmless
            return stall_after(replace(observed, actions=()), now, cause)
