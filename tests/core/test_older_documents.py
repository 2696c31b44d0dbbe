"""A document that an older version has written, while it is in use: users keep what they have, and no evidence starts again.

Not here: that the API server has what no longer is written removed (tests/api/test_flag_documents.py).
"""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from openfeature.contrib.tools.flagd.core import FlagdCore

from core.world import World, at, spec
from lab.population import users
from session_rollout.core.documents import read_document

OLDER: Final = (Path(__file__).parents[1] / "data" / "older-flags.flagd.json").read_text().strip()
FEATURES: Final = ("alpha", "beta", "gamma")


def upgraded(world: World) -> World:
    """The world at the first step, as an older version has left it."""
    world.until(at("one", 1))
    world.run(20)
    assert world.document is not None
    older = read_document(OLDER, version=world.document.version, owner=world.name)
    assert (older.revision, older.audiences) == (world.document.revision, world.document.audiences)
    world.document = older
    flags = world.status.flags.updated(sha256=older.sha256, published_sha256=older.sha256)
    world.status = world.status.updated(flags=flags)
    return world


def test_an_upgrade_in_a_hold_changes_no_start_of_a_verdict() -> None:
    """The document is written anew; the audience, its warm-up and the evidence about it are those of before."""
    world = upgraded(World(spec()))
    before, revision, events = world.status, world.status.flags.revision, len(world.status.history)
    world.settle()
    flags = world.status.flags
    assert world.document is not None
    assert world.document.sha256 not in {read_document(OLDER).sha256, before.flags.sha256}
    assert (flags.published_sha256, flags.revision) == (world.document.sha256, revision + 1)
    assert (flags.published_time, flags.given_time) == (before.flags.published_time, before.flags.given_time)
    assert world.status.current == before.current
    assert world.status.checks == before.checks
    assert len(world.status.history) == events


def test_a_write_that_takes_long_keeps_the_hold_waiting() -> None:
    """The document of the older version stays until then: nobody loses anything, and the time does not count."""
    world = upgraded(World(spec()))
    world.publishing = False
    world.run(300)
    assert world.where[:2] == ("one", 1)
    assert world.status.flags.disabled == ()
    published = world.status.flags.published_time
    world.publishing = True
    world.until(lambda world: world.status.current.percent != "10")
    assert world.status.flags.published_time is not None
    assert world.status.flags.published_time > (published or world.now) + timedelta(seconds=300)


@pytest.mark.parametrize("kill", [("alpha",), ("beta",)], ids=["the prerequisite", "the dependent"])
def test_a_kill_by_hand_in_an_older_document_is_an_emergency(kill: tuple[str, ...]) -> None:
    """D13: `off` is a variant that only older documents gave to everybody."""
    world = upgraded(World(spec()))
    edited = OLDER
    for name in kill:
        begin = edited.index(f'"{name}": {{')
        edited = edited[:begin] + edited[begin:].replace('"on": true', '"on": false', 1)
    world.document = read_document(edited, version=99, owner=world.name, editor="kubectl-edit")
    world.run(20)
    assert set(kill) <= {record.feature for record in world.status.flags.disabled}


def test_nobody_gains_or_loses_a_feature() -> None:
    """Of 2,000 users, with their groups and overrides, by the evaluator of applications."""
    world = upgraded(World(spec()))
    world.settle()
    before, after = FlagdCore(), FlagdCore()
    before.set_flags(OLDER)
    after.set_flags(world.documents[-1])
    for user in users(2_000):
        for groups in ((), ("staff",)):
            contexts = replace(user, groups=groups)
            for feature in FEATURES:
                old, new = (core.resolve_boolean_value(feature, False, contexts.context()).value for core in (before, after))
                assert old == new
