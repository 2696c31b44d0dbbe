"""Requests that the API server refuses: which of them stall a rollout, and how a person reads them."""

from typing import Final

from session_rollout.api.status_records import Refusal

UNNEEDED_EFFECTS: Final = frozenset({"Answer", "Emit", "Record"})  # the rollout continues without them


def refusal_text(refusal: Refusal) -> str:
    """`the API server refuses to create jobs in namespace shop since 10:02:13 UTC: forbidden ...`."""
    if not refusal.verb:
        return refusal.message
    what = f"{refusal.verb} {refusal.resource}"
    where = f" in namespace {refusal.namespace}" if refusal.namespace else ""
    return f"the API server refuses to {what}{where} since {refusal.time:%H:%M:%S} UTC: {refusal.message}"
