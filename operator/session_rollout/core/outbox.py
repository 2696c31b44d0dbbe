"""Notices on their way to sinks: in status until a sink has taken them, so that a crash loses none; nothing waits for them."""

from session_rollout.core.draft import Draft


def forget_delivered(draft: Draft) -> None:
    """What a sink has taken is done."""
    left = tuple(one for one in draft.status.outbox if one.id not in draft.observed.delivered)
    if left != draft.status.outbox:
        draft.change(outbox=left)


def standing(draft: Draft) -> tuple[str, str, str]:
    """Status, reason and message of the condition Notified."""
    wanted = {one.sink for one in draft.spec.notifications}
    if not wanted:
        return "True", "NobodyToTell", "no sink is named"
    troubles = [f"{sink}: {why}" for sink, why in sorted(draft.observed.undeliverable.items()) if sink in wanted]
    if troubles:
        return "False", "SinkFailing", "; ".join(troubles)
    return "True", "Delivered", "every sink takes its messages"
