"""Edits of the flag document by somebody else: each is corrected, and one that comes back again and again stalls the rollout.

A controller that applies a document of its own writes it as often as the operator corrects it: users have a feature part of the
time, whatever the status says.
"""

from datetime import timedelta
from typing import Final

from session_rollout.api.enums import DecisionAction, DecisionReason, EventReason
from session_rollout.api.flag_records import FlagDrift
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.flags import FlagDocument

RECENT: Final = timedelta(minutes=5)  # an edit that comes later is another one
CONTESTED: Final = 3  # edits within that time


def notice_drift(context: DecisionContext, wanted: FlagDocument) -> None:
    """Record that somebody else has changed or deleted the document, and what is published now.

    The history has the first edit and the one from which the document is contested: more of them would push out what happened.
    """
    flags, document = context.status.flags, context.document
    in_cluster = document.sha256 if document is not None else None
    edited = document is not None and document.editor is not None and in_cluster != flags.published_sha256
    if flags.published_sha256 is None or not (edited or flags.published_sha256 == wanted.sha256):
        return
    editor = document.editor if document is not None else None
    count = flags.drift.count + 1 if flags.drift is not None and context.now - flags.drift.time < RECENT else 1
    if count in {1, CONTESTED}:
        by = f" by {editor}" if editor else ""
        again = f" for the {CONTESTED}rd time in a short while" if count == CONTESTED else ""
        message = f"{wanted.config_map} was modified{by}{again} and is being corrected"
        context.record_event(EventReason.FLAG_DRIFT, message, revision=flags.revision, by=editor)
    drift = FlagDrift(time=context.now, by=editor or "", count=min(count, CONTESTED))
    context.change(flags=flags.updated(published_sha256=in_cluster, drift=drift))


def is_contested(context: DecisionContext) -> bool:
    """Whether somebody else keeps writing the document."""
    drift = context.status.flags.drift
    return drift is not None and drift.count >= CONTESTED and context.now - drift.time < RECENT


def await_document(context: DecisionContext) -> StageResult | None:
    """The stall while the document is contested."""
    drift = context.status.flags.drift
    if drift is None or not is_contested(context):
        return None
    name = context.status.flags.config_map
    who = f"{drift.by} keeps writing" if drift.by else "somebody keeps deleting"
    message = f"{who} ConfigMap {name}: users may have something else than this status says"
    return StageResult(
        DecisionAction.STALL,
        DecisionReason.DOCUMENT_CONTESTED,
        message,
        (message,),
        (f"take ConfigMap {name} out of what {drift.by or 'the other client'} manages",),
        next_time=drift.time + RECENT,
    )
