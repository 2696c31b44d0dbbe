"""Audiences as sets of users: what two of them have in common, and whether one lacks a user of the other."""

from decimal import Decimal

from session_rollout.core.flags import EVERYBODY, Audience, without_held_back


def lesser(first: Audience, other: Audience) -> Audience:
    """What both audiences give."""
    held = max(first.held_back, other.held_back)
    if first.percent == EVERYBODY.percent:
        return without_held_back(other, held)
    if other.percent == EVERYBODY.percent:
        return without_held_back(first, held)
    groups = tuple(group for group in first.groups if group in other.groups)
    percent, placebo = min(first.percent, other.percent), min(_divided(first), _divided(other))
    return without_held_back(Audience(percent, groups, Decimal(0) if percent or groups else placebo), held)


def _divided(audience: Audience) -> Decimal:
    """The percentage of users with the variant `on`, whether they have the feature or not."""
    return audience.placebo or audience.percent


def gives_less(first: Audience, other: Audience) -> bool:
    """Whether the first audience lacks a user that the second one has."""
    return _plain(lesser(first, other)) != _plain(other)


def _plain(audience: Audience) -> Audience:
    """The audience without groups where a percentage of 100 includes them, and without a placebo, which gives the feature to nobody."""
    groups = () if audience.percent == EVERYBODY.percent else audience.groups
    return Audience(audience.percent, groups, held_back=audience.held_back)
