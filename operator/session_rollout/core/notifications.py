"""Notices on their way to sinks: in status until a sink has taken them, so that a crash loses none; nothing waits for them."""

from session_rollout.core.context import DecisionContext


def forget_delivered(context: DecisionContext) -> None:
    """What a sink has taken is done."""
    left = tuple(one for one in context.status.pending_notifications if one.id not in context.observed.delivered)
    if left != context.status.pending_notifications:
        context.change(pending_notifications=left)


def standing(context: DecisionContext) -> tuple[str, str, str]:
    """Status, reason and message of the condition Notified."""
    wanted = {one.sink for one in context.spec.notifications}
    if not wanted:
        return "True", "NobodyToTell", "no sink is named"
    troubles = [f"{sink}: {why}" for sink, why in sorted(context.observed.sink_errors.items()) if sink in wanted]
    if troubles:
        return "False", "SinkFailing", "; ".join(troubles)
    return "True", "Delivered", "every sink takes its messages"
