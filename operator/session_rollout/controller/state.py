"""What the process remembers about rollouts. All of it may be lost: after a restart it is read again.

`RolloutState` is written by the reconciliation of its rollout; its `actions` by the inbox; its `wake` by whatever changed.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from session_rollout.api import CRD
from session_rollout.api.action import SessionRolloutAction
from session_rollout.api.enums import Outcome
from session_rollout.api.metrics import Control, Metric
from session_rollout.api.quantities import duration
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status import RolloutStatus
from session_rollout.api.status_records import AnsweredAction, Refusal
from session_rollout.controller.contest import CONTESTED_TEXT, Contest, is_before, known_part
from session_rollout.controller.refusals import refusal_of
from session_rollout.controller.requests import Requests
from session_rollout.controller.turns import Priority, no_others
from session_rollout.controller.unconfirmed import Unconfirmed
from session_rollout.core.context import RESYNC, longest_gap
from session_rollout.core.deleted import PROTECTING
from session_rollout.core.documents import PublishedDocument
from session_rollout.core.flags import config_map_name
from session_rollout.core.refusals import CONTESTED_EFFECT, FIELDS_EFFECT, FINALIZER_EFFECT, STATUS_EFFECT
from session_rollout.errors import FieldDropped, StatusContested
from session_rollout.ports import Key, Queries, Stored

log = logging.getLogger(__name__)
TOGETHER_SECONDS: Final = 0.03  # results that arrive within this time cause one reconciliation
OVERDUE_FACTOR: Final = 2
OVERDUE_SLACK_SECONDS: Final = 30.0
HUNG_SECONDS: Final = 600.0  # each request ends within seconds, so nothing that a slow API server delays takes so long
OUTAGE_SHOWN: Final = timedelta(seconds=30)
LONGEST_REST: Final = RESYNC.total_seconds()
READ_DOCUMENT: Final = "ReadDocument"


@dataclass(frozen=True)
class ActionList:
    """UIDs of all actions that existed when a list was requested, but for namespaces that could not be listed."""

    time: datetime
    uids: frozenset[str]
    unlisted: frozenset[str] = frozenset()  # namespaces


@dataclass
class PendingActions:
    """The actions about one rollout that wait for a response, by UID.

    A list that was requested before the response shows the action without one. `finished` keeps such an action from being
    added again: it would be carried out again once its entry has been removed from `status.processedActions`.
    """

    waiting: dict[str, SessionRolloutAction] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)  # with a response or deleted, as far as this process knows

    def add(self, action: SessionRolloutAction) -> bool:
        """Add the action; returns False if it is already known or finished."""
        new = action.uid not in self.waiting and action.uid not in self.finished
        if new:
            self.waiting[action.uid] = action
        return new

    def finish(self, uid: str) -> bool:
        """Mark an action as finished, because it has a response or was deleted; returns False if it was marked before."""
        new = uid not in self.finished
        self.waiting.pop(uid, None)
        self.finished.add(uid)
        return new

    @property
    def protect(self) -> bool:
        """Whether one of them may have to turn something off."""
        return any(action.spec.action in PROTECTING for action in self.waiting.values())

    def oldest_first(self) -> tuple[SessionRolloutAction, ...]:
        """The actions in the order in which they were created."""
        return tuple(sorted(self.waiting.values(), key=lambda action: (action.creation_time, action.name)))

    def settled(self, entries: Iterable[AnsweredAction], listed: ActionList | None) -> frozenset[str]:
        """UIDs of the recorded responses that are no longer needed: each was read back, or its action is gone."""
        return frozenset(entry.uid for entry in entries if entry.uid in self.finished or self._gone(entry, listed))

    def _gone(self, entry: AnsweredAction, listed: ActionList | None) -> bool:
        # Only a list that was requested after the response proves that the action was deleted: an earlier list may lack an
        # action that was created and got its response after the list was requested.
        if listed is None or entry.uid in self.waiting:
            return False
        return entry.time < listed.time and entry.uid not in listed.uids


@dataclass(frozen=True)
class DecidedStatus:
    """A status that was decided and could not be written: the next decision starts from it, so that its time counts.

    It is valid as long as the stored status is the one that it was decided from. After a conflict, the spec must be the same, too:
    what was decided about the one before must not be carried out.
    """

    stored: RolloutStatus
    decided: RolloutStatus
    generation: int | None = None  # of the spec, after a conflict
    observed: datetime | None = None  # until when evidence was evaluated for it, after a conflict

    def follows(self, stored: RolloutStatus, generation: int) -> bool:
        """Whether the next decision may start from it."""
        return self.stored == stored and self.generation in {None, generation}


@dataclass
class RolloutState:
    """What is remembered about one rollout."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    actions: PendingActions = field(default_factory=PendingActions)
    config_map: str = ""  # name of the only one that is its flag document; empty until the rollout was read
    document: PublishedDocument | None = None  # what is published, as far as is known
    document_version: int = -1  # of the newest write, read or event of the document; -1: nothing is known
    document_since: int = -1  # the oldest version since which nobody else has changed what it says
    document_doubted: bool = False  # a sweep could not list it, so it may have changed without an event
    last_reconcile: datetime | None = None
    last_record: datetime | None = None
    unprotected: bool = False  # something is to be turned off that the document has on, or an action may say so
    failures: int = 0
    conflicts: int = 0
    next_decision: float = math.inf  # seconds that the last decision allowed until the next one
    decided: DecidedStatus | None = None
    unconfirmed: Unconfirmed = field(default_factory=Unconfirmed)
    contest: Contest = field(default_factory=Contest)
    unstored: RolloutStatus | None = None  # the last one of which the API server has dropped a field
    refusals: dict[str, Refusal] = field(default_factory=dict)  # by effect
    queries: tuple[tuple[str, tuple[Metric, ...], Control], Queries] | None = None  # of the spec that was read last
    reads: Requests = field(default_factory=Requests)
    writes: Requests = field(default_factory=Requests)  # to the object itself
    releases: Requests = field(
        default_factory=Requests
    )  # of its flag document, which protect users, and what its deletion reads
    effects: Requests = field(default_factory=Requests)  # of decisions, but what protects users
    features: frozenset[str] = frozenset()
    has_loop: bool = False  # a loop runs for this rollout
    uid: str | None = None  # of the object that the loop is for
    accounted: bool = False  # a status has what this process has evaluated
    known: bool = False  # it had a status when the loop started, so users may have its features
    interval: timedelta = timedelta(0)  # of its checks
    deleted: bool = False  # its deletion waits for nothing that the loop does: the loop ends
    released: bool | None = (
        None  # whether its deletion, which waits, has just turned the flags off; None: it does not turn them off
    )
    finalized: bool = False  # its deletion has done everything but remove the finalizer
    release_began: float | None = (
        None  # monotonic seconds: when a write of the document first failed that the deletion waits for
    )
    has_successor: bool = False  # another object was created under its name, whose loop waits for the end of this one
    last: Stored | None = None  # the object as it was decided about last, with the status that was decided
    removal_failures: int = 0  # attempts to end the deletion in vain
    awaits_removal: bool = False  # the last reconciliation has found nothing else to wait for
    removal_due: float = 0.0  # monotonic seconds: when the next one is made; until then the loop protects users
    stored: RolloutStatus | None = None  # the known part of the status as this process knows it; None while it does not
    restored: bool = False  # somebody else has written the status: until when its evidence was evaluated is unknown
    rested: float = 0.0  # seconds since `last_reconcile` in which the loop had nothing to do
    waited: float = 0.0  # seconds for the turn of this reconciliation
    pass_on: Callable[[], Awaitable[None]] = no_others  # gives its turn to those that wait, and waits for another
    _deadline: float | None = None  # monotonic seconds
    _began: float | None = None  # to work, in monotonic seconds
    _wake_scheduled: bool = False

    @property
    def priority(self) -> Priority:
        """How soon its next reconciliation must come, compared with those of other rollouts."""
        if self.actions.waiting or self.deleted or self.unprotected:
            return Priority.URGENT
        return Priority.KNOWN if self.known or self.last_reconcile is not None else Priority.NEW

    def base(self, stored: RolloutStatus, generation: int) -> RolloutStatus:
        """The status that the next decision starts from."""
        if self.decided is not None and not self.decided.follows(stored, generation):
            self.decided = None
        return self.decided.decided if self.decided is not None else self.contest.base(stored)

    def read(self, stored: RolloutStatus, created: datetime, *, by_others: bool) -> None:
        """The status was read. Only a restored backup is older than the one that is known, or than its object.

        Another leader may have written a newer one. What this process has not seen written may be a backup if it is `by_others`.
        """
        began, known = stored.current.stage_start_time, self.stored
        older = self.last_reconcile is None and began is not None and (began < created or by_others)
        if not self.contest.suspected:
            self.restored |= older or (known is not None and is_before(stored, known))
        self.contest.read(stored, known)
        self.stored = known_part(stored)

    def wrote(self, status: RolloutStatus) -> None:
        """The status was written, and is now read as it is on the wire."""
        self.stored = RolloutStatus.model_validate(known_part(status).to_wire())
        self.contest.wrote()

    def note_contest(self, key: Key, stored: RolloutStatus, decided: RolloutStatus, now: datetime) -> None:
        """A decision was made: notice another operator that writes over the status, and when it has ended."""
        self.contest.decided(stored, decided, now)
        if not self.contest.contested:
            self.succeeded(CONTESTED_EFFECT)
        elif CONTESTED_EFFECT not in self.refusals:
            log.warning("%s", CONTESTED_TEXT, extra=key.fields)
            self.refused(CONTESTED_EFFECT, StatusContested(CONTESTED_TEXT), now)

    def reconciled(self, now: datetime) -> None:
        """Every measurement was there: this time counts as time in which the evidence was evaluated."""
        self.last_reconcile, self.rested, self.restored = now, 0.0, False

    def is_behind(self, now: datetime) -> bool:
        """Whether another process that takes over now must not take this rollout for evaluated until now."""
        if self.last_reconcile is None or self.restored:
            return self.known or self.restored
        usual = max(longest_gap(self.interval, self.busy(now)), 2 * timedelta(seconds=min(self.next_decision, LONGEST_REST)))
        return now - self.last_reconcile > usual

    def busy(self, now: datetime) -> timedelta:
        """How long it was being reconciled, or waited for its turn, since its evidence was last evaluated."""
        if self.last_observed is None:
            return timedelta(0)
        return max(timedelta(0), now - self.last_observed - timedelta(seconds=self.rested))

    def keep_decided(self, decided: DecidedStatus) -> None:
        """Let the next decision start from it, unless users get more or are no longer guarded: that is decided again until it is written."""
        before, after = self.decided.decided if self.decided is not None else decided.stored, decided.decided
        promoted = after.outcome is Outcome.PROMOTED and before.outcome is not Outcome.PROMOTED
        entered = after.current.stage_start_time != before.current.stage_start_time
        grows = after.current.is_unpublished or after.is_release_pending
        if not (promoted or (entered and grows)):
            self.decided = decided

    @property
    def last_observed(self) -> datetime | None:
        """When the evidence was last evaluated for the status that the next decision starts from."""
        kept = self.decided.observed if self.decided is not None else None
        return kept or self.last_reconcile

    def stored_without(self, field: str, stored: RolloutStatus, decided: RolloutStatus, now: datetime) -> FieldDropped | None:
        """The API server has dropped a field: the next decision starts from what was decided. The error, if this is news."""
        error = FieldDropped(f"the CRD {CRD} is older than the operator: it drops {field}")
        news = FIELDS_EFFECT not in self.refusals
        self.refused(FIELDS_EFFECT, error, now)
        self.decided, self.unstored = DecidedStatus(stored, decided), decided
        return error if news else None

    def stored_whole(self) -> None:
        """The API server no longer drops a field."""
        self.unstored = None
        self.succeeded(FIELDS_EFFECT)
        self.wake.set()

    def status_stored(self) -> None:
        """The status is what was decided, though the response was late or lost. A refusal that the status shows is over."""
        if STATUS_EFFECT in self.refusals:
            self.succeeded(STATUS_EFFECT)
            self.wake_soon()

    def applies(self, spec: RolloutSpec) -> None:
        """The rollout was read: its flag document has a name. What is known of another one says nothing about it."""
        self.interval, config_map = duration(spec.check_interval), config_map_name(spec.flag_set)
        if config_map != self.config_map:
            self.config_map = config_map
            self.forget_document()

    def know(self, document: PublishedDocument | None, version: int) -> None:
        """What is published now, as of this version."""
        if document is None or self.document is None or not document.same_as(self.document):
            self.document_since = version
        self._know(document, version)

    def published(self, document: PublishedDocument, seen: int) -> None:
        """This process has written a document over the version `seen`; the watch may have delivered a later one meanwhile."""
        if document.version < self.document_version:
            self.forget_document()
            return
        self.document_since = min(self.document_since, seen)
        self._know(document, document.version)

    def _know(self, document: PublishedDocument | None, version: int) -> None:
        self.document, self.document_version = document, version
        self.confirm_document()

    def confirm_document(self) -> None:
        """It is still what is published."""
        self.document_doubted = False
        self.succeeded(READ_DOCUMENT)

    def forget_document(self) -> None:
        """It changed since it was read: read it again."""
        self.know(None, -1)

    def refused(self, effect: str, error: Exception, now: datetime) -> None:
        """The API server refuses an effect; the time of the first refusal stays."""
        since = self.refusals[effect].since if effect in self.refusals else now
        self.refusals[effect] = refusal_of(effect, error, since)

    def note(self, effect: str, error: Exception | None, now: datetime) -> None:
        """Remember the result of a request."""
        if error is None:
            self.succeeded(effect)
        else:
            self.refused(effect, error, now)

    def succeeded(self, effect: str) -> None:
        """The API server no longer refuses an effect."""
        self.refusals.pop(effect, None)

    def shown_refusals(self, now: datetime) -> tuple[Refusal, ...]:
        """What the status shows: an outage is shown only when it lasts, but for that of the finalizer, before which nothing begins."""
        return tuple(
            refusal
            for effect, refusal in sorted(self.refusals.items())
            if effect == FINALIZER_EFFECT or refusal.remedy or now - refusal.since >= OUTAGE_SHOWN
        )

    def wake_soon(self) -> None:
        """Wake the loop in a moment; what arrives until then is part of the same reconciliation."""
        if not self._wake_scheduled:
            self._wake_scheduled = True
            asyncio.get_running_loop().call_later(TOGETHER_SECONDS, self._wake_now)

    def _wake_now(self) -> None:
        self._wake_scheduled = False
        self.wake.set()

    @contextmanager
    def working(self) -> Iterator[None]:
        """The block must end one day."""
        self._began = time.monotonic()
        try:
            yield
        finally:
            self._began = None

    @property
    def hung(self) -> bool:
        """Whether its loop works for so long that it hangs. One that waits for a slow API server, or for its turn, does not."""
        return self._began is not None and time.monotonic() - self._began > HUNG_SECONDS

    def expect_next(self, seconds: float) -> None:
        """The next reconciliation should come within this time; it is overdue after twice as much and some slack."""
        self._deadline = time.monotonic() + OVERDUE_FACTOR * (seconds + OVERDUE_SLACK_SECONDS)

    @property
    def until_removal(self) -> float:
        """Seconds until the end of the deletion is tried again; 0 when it was not tried, or is due."""
        return max(self.removal_due - time.monotonic(), 0.0)

    def removal_refused(self, seconds: float) -> None:
        """The deletion could not be ended: the object stays, and users with it, so the loop goes on until the next attempt."""
        self.removal_failures += 1
        self.removal_due, self.deleted = time.monotonic() + seconds, False

    def expect_nothing(self) -> None:
        """The loop has ended: what the deletion does now has bounds of its own."""
        self._deadline = None

    @property
    def overdue(self) -> bool:
        """Whether the next reconciliation did not come in time."""
        return self._deadline is not None and time.monotonic() > self._deadline
