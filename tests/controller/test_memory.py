"""What is remembered about all rollouts together: who has the same features."""

from session_rollout.controller.memory import Memory
from session_rollout.ports import Key

ONE, OTHER, LAST = (Key("shop", name) for name in ("one", "other", "last"))


def test_features_are_shared_within_a_namespace_and_until_they_go() -> None:
    """Whatever a rollout has now counts, not what it had: after an edit, a deletion, or the end of its loop."""
    memory = Memory()
    memory.has_features(ONE, frozenset({"cart", "search"}))
    memory.has_features(LAST, frozenset({"cart"}))
    memory.has_features(OTHER, frozenset({"cart", "search"}))
    memory.has_features(Key("test", "one"), frozenset({"cart"}))
    assert memory.others_with(ONE) == {"cart": "last", "search": "other"}
    memory.has_features(OTHER, frozenset({"search"}))
    memory.forget(LAST)
    assert memory.others_with(ONE) == {"search": "other"}
    assert memory.others_with(OTHER) == {"search": "one"}
    memory.end(ONE)
    assert memory.others_with(OTHER) == {}
    assert memory.others_with(Key("test", "one")) == {}
