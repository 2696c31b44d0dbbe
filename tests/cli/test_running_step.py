"""What completing a step now would skip, and what the plugin prints of texts that other users have written.

Not here: the command itself (test_actions), the picture of a rollout (test_render_status).
"""

from decimal import Decimal
from typing import Any

import pytest
import yaml

from core.world import World, at, edited, ended, spec, with_another_plan
from session_rollout.api.enums import Verdict
from session_rollout.api.rollout import RolloutSpec
from session_rollout.cli.command import Failure
from session_rollout.cli.common import printable
from session_rollout.cli.manifests import Effect, _consequence, _dumper
from session_rollout.cli.running_step import require_approval, skipped_checks


def test_only_what_is_still_awaited_is_skipped() -> None:
    """The clock of this rollout is behind the real one, so its hold is over, unless the timer is paused."""
    world = World(edited(lambda data: data["phases"][0]["steps"][0].update(approval="Required")))
    world.until(at("one", 1))
    world.run(20)
    assert len(skipped_checks(world.rollout())) == 1  # the approval
    world.values["errors"] = Verdict.NO_DATA
    world.run(20)
    assert len(skipped_checks(world.rollout())) == 3  # the criterion, the hold and the approval
    world.values["errors"] = Decimal("0.001")
    world.request("Approve", generation=1, phase="one", step=1)
    world.run(20)
    assert skipped_checks(world.rollout()) == []


def test_plugin_approves_only_what_waits_now() -> None:
    """A second `approve` finds the next step, which nobody has looked at yet; the hold that runs needs no answer."""
    world = World(edited(lambda data: [step.update(approval="Required") for step in data["phases"][0]["steps"][:2]]))
    world.until(lambda world: bool(world.status.decision.approvals))
    require_approval(world.rollout())
    world.request("Approve", generation=1, phase="one", step=1)
    world.until(lambda world: world.where[:2] == ("one", 2) and world.status.current.hold_until is not None)
    with pytest.raises(Failure):
        require_approval(world.rollout())


@pytest.mark.parametrize(
    ("wanted", "effect"), [(spec(bake="10s"), Effect.STAYS_ENDED), (with_another_plan(), Effect.STARTS_AGAIN)]
)
def test_edit_after_a_rollback_says_whether_it_is_another_attempt(wanted: RolloutSpec, effect: Effect) -> None:
    """And the operator does what was said."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("Abort")
    world.until(ended)
    assert _consequence(world.rollout(), wanted, ()).effect is effect
    world.edit(wanted)
    world.run(20)
    assert (world.status.outcome is None) is (effect is Effect.STARTS_AGAIN)


@pytest.mark.parametrize("text", ["line1\nline2", "\x1b[31mred\x07", "tab\there", "\x9b31m"])
def test_control_characters_do_not_reach_a_terminal(text: str) -> None:
    """Everybody who may create an action writes texts that on-call engineers read."""
    shown = printable({"history": [{"message": text}]})["history"][0]["message"]
    assert (shown.isprintable(), len(shown)) == (True, len(text))


@pytest.mark.parametrize("text", ["y", "No", "on", "1e3", "0o7", "0x1F", "1_000", "2026-01-01", "null", "~", ".5", "-1", "10%"])
def test_what_a_reader_of_yaml_could_take_for_something_else_is_quoted(text: str) -> None:
    """Kubernetes reads other scalars as numbers and booleans than Python does."""
    written: Any = yaml.dump({"flagSet": text}, Dumper=_dumper())
    assert written == f'flagSet: "{text}"\n'
