"""What `spec.suspend` means for users: guards are not heard, and everybody keeps what is published."""

from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status import RolloutStatus
from session_rollout.core.flags import audiences, disabled_features
from session_rollout.core.holdback import users_text


def kept_audiences(spec: RolloutSpec, status: RolloutStatus) -> dict[str, str]:
    """The audience of each feature that some users have, and that guards would protect; retired ones are out of the plan."""
    unguarded = {*disabled_features(spec, status), *(kept.feature for kept in status.flags.retired)}
    given = {name: audience for name, audience in audiences(spec, status).items() if name not in unguarded}
    return {name: users_text(audience) for name, audience in given.items() if audience.has_users}


def kept_texts(spec: RolloutSpec, status: RolloutStatus) -> tuple[str, ...]:
    """`20% keep alpha`, for each of them."""
    return tuple(f"{audience} keep {feature}" for feature, audience in kept_audiences(spec, status).items())


def suspended_text(spec: RolloutSpec, status: RolloutStatus) -> str:
    """The message of a suspended rollout; in a few words, as `kubectl get` shows it."""
    if status.flags.adoption_required:
        return "suspended: guards are not heard, the flag document is kept as it is"
    kept = kept_audiences(spec, status)
    if not kept:
        return "suspended"
    (feature, audience), *others = kept.items()
    users = f"users keep {len(kept)} features" if others else f"{audience} keep {feature}"
    return f"suspended: guards are not heard, {users}"
