"""When users got the features for the first time: the document knows it, too, so that no earlier week of a baseline has them.

Not here: which weeks are read (test_seasons), what else is adopted (test_adoption).
"""

import json
import re
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import pytest

from core.document_scenarios import recreated
from core.test_seasons import WEEK, criterion, flat, seasoned, slow
from core.world import World, at, ended
from session_rollout.api.enums import DecisionReason, EventReason, PhaseState
from session_rollout.core.documents import read_document
from session_rollout.core.first_publish import UNKNOWN
from session_rollout.core.flags import FIRST_PUBLISHED
from session_rollout.core.seasons import seasons_read

FEATURES: Final = ("alpha", "beta", "gamma")
LATER: Final = timedelta(days=8)  # a week before is a day with the feature


def published() -> World:
    world = seasoned(slow("20d"), flat)
    world.until(at("one", 1), tick=60)
    world.run(120, tick=60)
    return world


def first(world: World) -> datetime | None:
    return world.status.phases[0].first_publish_time


def weeks(world: World) -> list[int]:
    """How many weeks ago the seasons are that are read."""
    return [ago // WEEK for ago in seasons_read(world.rollout(), world.now)["load"]]


def created_again(world: World, spec: Any = None) -> World:
    """The same rollout as a new object, later."""
    world.now += LATER
    fresh = recreated(world)
    fresh.spec, fresh.waves = spec or world.spec, world.waves
    fresh.run(120, tick=60)
    return fresh


def edited(world: World, change: Any, **known: Any) -> None:
    """Another client has changed the document."""
    document = json.loads(world.documents[-1])
    change(document["flags"])
    assert world.document is not None
    world.document = read_document(json.dumps(document), version=world.document.version + 1, owner=world.name, **known)


def without_times(flags: dict[str, Any]) -> None:
    for name in FEATURES:
        flags[name].pop("metadata")


def test_document_has_the_time_for_each_feature() -> None:
    """Of the phase that published it; whatever becomes of the phase, and while an emergency disables the feature."""
    world = published()
    assert world.document is not None
    assert world.document.first_published == dict.fromkeys(FEATURES, first(world))
    world.request("EmergencyDisable", features=["alpha"])
    world.run(60, tick=60)
    world.values["load"] = Decimal(2)
    world.until(ended, tick=60)
    assert world.document.first_published == dict.fromkeys(FEATURES, first(world))
    assert "alpha" in world.document.disabled


def test_features_that_nobody_had_have_none() -> None:
    world = seasoned(slow(), flat)
    world.answering = False
    world.run(120, tick=60)
    assert world.document is not None
    assert world.document.first_published == {}


def test_reset_is_compared_with_the_weeks_before_the_feature() -> None:
    """Its harm in the weeks of the object before would be its baseline, and hide it."""
    world = published()
    fresh = created_again(world)
    assert fresh.reason is DecisionReason.ADOPTION_REQUIRED
    fresh.request("Reset")
    fresh.until(at("one", 1), tick=60)
    assert first(fresh) == first(world)
    assert weeks(fresh) == [2, 3, 4]


def test_adopted_rollback_is_compared_with_the_weeks_before_the_feature() -> None:
    world = published()
    world.request("Abort")
    world.until(ended, tick=60)
    fresh = created_again(world)
    fresh.request("Adopt")
    fresh.run(120, tick=60)
    fresh.now += timedelta(minutes=1)
    fresh.request("Retry", generation=1)
    fresh.until(at("one", 1), tick=60)
    assert first(fresh) == first(world)
    assert weeks(fresh) == [2, 3, 4]


def test_released_document_keeps_the_time() -> None:
    """A new object does not even ask for `Adopt`: nobody has anything."""
    world = published()
    world.request("Abort")
    world.until(ended, tick=60)
    assert world.document is not None
    edited(world, dict)  # the rollback is not in its annotation, as after `deletionPolicy: Off`
    fresh = created_again(world)
    fresh.until(at("one", 1), tick=60)
    assert first(fresh) == first(world)


def test_emergency_while_the_document_is_kept_loses_no_time() -> None:
    world = published()
    fresh = created_again(world)
    fresh.request("EmergencyDisable", features=["alpha"])
    fresh.run(60, tick=60)
    fresh.request("EmergencyEnable")
    fresh.request("Reset", after=timedelta(seconds=1))
    fresh.run(60, tick=60)
    assert first(fresh) == first(world)
    assert fresh.document is not None
    assert fresh.document.first_published == dict.fromkeys(FEATURES, first(world))


def test_phase_with_another_name_is_the_phase_of_its_features() -> None:
    world = published()
    world.request("Abort")
    world.until(ended, tick=60)
    renamed = slow().to_wire()
    renamed["phases"][0]["name"] = "uno"
    fresh = created_again(world, type(world.spec).model_validate(renamed))
    fresh.request("Reset")
    fresh.until(at("uno", 1), tick=60)
    assert first(fresh) == first(world)


def is_unseasoned(world: World) -> bool:
    """Whether the criterion is compared with one value, because no week without the feature is known."""
    return first(world) == UNKNOWN and criterion(world).seasons == 0 and "Unseasoned" in criterion(world).message


def test_document_without_the_time_has_no_seasons() -> None:
    """A version before this one has written it: the weeks before may all have the feature."""
    world = published()
    edited(world, without_times)
    fresh = created_again(world)
    fresh.request("Reset")
    fresh.until(at("one", 1), tick=60)
    fresh.run(3600, tick=60)
    assert is_unseasoned(fresh)


def test_kill_by_hand_that_replaces_the_flags_has_no_seasons() -> None:
    """Their times are lost with them, so the weeks before may all have the feature."""
    world = published()
    killed = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"}
    edited(world, lambda flags: flags.update(dict.fromkeys(FEATURES, killed)), editor="kubectl-edit")
    fresh = created_again(world)
    fresh.request("Reset")
    fresh.run(120, tick=60)
    fresh.request("EmergencyEnable")
    fresh.until(at("one", 1), tick=60)
    fresh.run(3600, tick=60)
    assert is_unseasoned(fresh)


def test_status_without_the_time_has_no_seasons() -> None:
    """A version before this one has published the phase, and rolled it back."""
    world = published()
    world.request("Abort")
    world.until(ended, tick=60)
    older = (record.updated(first_publish_time=None) for record in world.status.phases)
    world.status = world.status.updated(phases=tuple(older))
    edited(world, without_times)
    world.run(120, tick=60)
    world.request("Retry", generation=1)
    world.until(at("one", 1), tick=60)
    world.run(3600, tick=60)
    assert world.status.phases[0].state is PhaseState.RUNNING
    assert is_unseasoned(world)


def test_document_that_gives_only_what_is_on_initially_says_nothing() -> None:
    """No phase has published it, and every week has it."""
    rollout = slow()
    initially = rollout.updated(features=tuple(feature.updated(initial="On") for feature in rollout.features))
    world = seasoned(initially, flat)
    world.answering = False
    world.run(120, tick=60)
    fresh = created_again(world)
    assert fresh.reason is DecisionReason.ADOPTION_REQUIRED
    fresh.request("Reset")
    fresh.until(at("one", 1), tick=60)
    assert criterion(fresh).seasons == 3


@pytest.mark.parametrize("time", ["2001-01-01T00:00:00Z", None])
def test_time_that_somebody_edits_is_corrected(time: str | None) -> None:
    world = seasoned(slow(), flat)
    world.answering = False
    world.run(120, tick=60)
    metadata = {FIRST_PUBLISHED: time} if time else {}
    edited(world, lambda flags: flags["alpha"].update(metadata=metadata), editor="kubectl-edit")
    world.run(120, tick=60)
    assert len(world.entries(EventReason.FLAG_DRIFT)) == 1
    assert first(world) is None
    assert world.document is not None
    assert world.document.first_published == {}


@pytest.mark.parametrize(
    ("value", "known"),
    [
        ("2026-01-05T10:00:00Z", "2026-01-05T10:00:00+00:00"),
        ("2026-01-05T11:00:00.000+01:00", "2026-01-05T10:00:00+00:00"),
        ("0001-01-01T00:00:00+23:00", "1970-01-01T00:00:00+00:00"),
        ("2026-01-05T10:00:00", None),
        ("soon", None),
        ("", None),
        (5, None),
        (True, None),
        ({}, None),
        (None, None),
    ],
)
def test_time_of_any_kind_is_read(value: Any, known: str | None) -> None:
    """Whoever may edit the document may write anything; what is no time with a zone is none."""
    text = json.dumps({"flags": {"alpha": {"metadata": {FIRST_PUBLISHED: value}}}})
    times = read_document(text).first_published
    assert times == ({} if known is None else {"alpha": datetime.fromisoformat(known)})


def test_time_in_the_future_is_now() -> None:
    """A document of a cluster with another clock: nobody had the feature after now."""
    world = published()
    text = re.sub(r'("firstPublished": ")[^"]*', r"\g<1>2099-01-01T00:00:00Z", world.documents[-1])
    world.document = read_document(text, version=99, owner=world.name)
    fresh = created_again(world)
    time = first(fresh)
    assert time is not None
    assert time <= fresh.now
