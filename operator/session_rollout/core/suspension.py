"""What `spec.suspend` means for users: guards are not heard, and everybody keeps what is published."""

from decimal import Decimal

from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status import RolloutStatus
from session_rollout.core.flags import NOBODY, audiences, disabled_features
from session_rollout.core.steps import audience_text, percent_text


def kept_audiences(spec: RolloutSpec, status: RolloutStatus) -> dict[str, str]:
    """The audience of each feature that some users have."""
    disabled = disabled_features(spec, status)
    given = {name: audience for name, audience in audiences(spec, status).items() if name not in disabled}
    return {
        name: audience_text(percent_text(Decimal(audience.percent)), audience.groups)
        for name, audience in given.items()
        if audience != NOBODY
    }


def suspended_text(spec: RolloutSpec, status: RolloutStatus) -> str:
    """The message of a suspended rollout; in a few words, as `kubectl get` shows it."""
    kept = kept_audiences(spec, status)
    if not kept:
        return "suspended"
    (feature, audience), *others = kept.items()
    users = f"users keep {len(kept)} features" if others else f"{audience} keep {feature}"
    return f"suspended: guards are not heard, {users}"
