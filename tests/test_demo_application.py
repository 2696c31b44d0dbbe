"""What the demo application counts: each session once, with the variant that decided and the cell of its user.

Not here: what the operator makes of the counters (tests/integration), the code of the documentation (tests/docs/test_instrumentation.py).
"""

import json
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType

from lab.application import BATCH, EXPOSURES, SESSIONS, Application
from lab.population import users
from session_rollout.core.flags import CELL_NAMES, VARIANTS, Audience, FlagSource, compile_document

FEATURES = ("newCheckout", "newSearch")
POPULATION = users(10 * BATCH)


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    """Its flags give a feature to a fifth of users and a group, and another to nobody."""
    path = tmp_path / "flags.flagd.json"
    audiences = {FEATURES[0]: Audience(Decimal(20), ("beta",)), FEATURES[1]: Audience()}
    path.write_text(compile_document(FlagSource("checkout", "shop", audiences)).text)
    api.set_provider_and_wait(
        FlagdProvider(resolver_type=ResolverType.FILE, offline_flag_source_path=str(path), deadline_ms=500)
    )
    SESSIONS.clear()
    EXPOSURES.clear()
    yield Application(path, "", population=POPULATION)
    api.shutdown()


def counted(flag: str) -> Counter[tuple[str, str, str]]:
    """Sessions by variant, cell and result."""
    [metric] = SESSIONS.collect()
    samples = [sample for sample in metric.samples if sample.name == "sessions_total" and sample.labels["flag"] == flag]
    counts = Counter[tuple[str, str, str]]()
    for sample in samples:
        counts[sample.labels["variant"], sample.labels["cell"], sample.labels["result"]] += int(sample.value)
    return counts


def by(index: int, counts: Counter[tuple[str, str, str]]) -> Counter[str]:
    """The sum over the other labels."""
    sums = Counter[str]()
    for labels, count in counts.items():
        sums[labels[index]] += count
    return sums


def serve(application: Application) -> None:
    """A session of each user."""
    application.read_features()
    for begin in range(0, len(POPULATION), BATCH):
        application.serve(list(POPULATION[begin : begin + BATCH]))


def test_each_session_counts_once_for_each_flag(application: Application) -> None:
    serve(application)
    for feature in FEATURES:
        assert sum(counted(feature).values()) == len(POPULATION)


def test_sessions_have_the_variant_that_decided(application: Application) -> None:
    """Group members and users with an override were chosen, and so were all users of a feature that nobody has."""
    beta, other = ([user for user in POPULATION if ("beta" in user.groups) is member] for member in (True, False))
    on, off = other[0], other[1]
    application.overrides = {on.id: {"overridesOn": [FEATURES[0]]}, off.id: {"overridesOff": [FEATURES[0]]}}
    serve(application)
    variants = by(0, counted(FEATURES[0]))
    assert set(variants) == set(VARIANTS)
    assert (variants["on-chosen"], variants["off-chosen"]) == (len(beta) + 1, 1)
    assert variants["on"] == sum(application.has(user, FEATURES[0]) for user in other[2:])
    assert by(0, counted(FEATURES[1])) == {"off-chosen": len(POPULATION)}


def test_sessions_have_the_cell_of_their_user(application: Application) -> None:
    """The same for every flag, and one of 16 of about the same size."""
    serve(application)
    cells = by(1, counted(FEATURES[0]))
    assert set(cells) == set(CELL_NAMES)
    assert min(cells.values()) > len(POPULATION) / len(CELL_NAMES) / 2
    assert cells == by(1, counted(FEATURES[1]))


def test_only_users_with_the_feature_are_harmed(application: Application) -> None:
    """A session has one result, whatever flag it is counted for."""
    application.faults = {FEATURES[0]: {"errors": 0.5}}
    serve(application)
    failed = {variant for variant, _, result in counted(FEATURES[0]) if result == "failure"}
    assert failed == {"on", "on-chosen"}
    assert by(2, counted(FEATURES[0])) == by(2, counted(FEATURES[1]))


def test_exposures_have_the_variant(application: Application) -> None:
    """The dashboard adds up the variants with which users have the feature."""
    serve(application)
    [metric] = EXPOSURES.collect()
    exposures = {
        (sample.labels["flag"], sample.labels["variant"]): sample.value
        for sample in metric.samples
        if sample.name == "feature_exposures_total"
    }
    assert {variant: count for (flag, variant), count in exposures.items() if flag == FEATURES[0]} == by(
        0, counted(FEATURES[0])
    )


def test_features_are_the_flags_of_the_rollout(application: Application) -> None:
    assert application.read_features() == FEATURES
    flags = json.loads(application.flags_path.read_text())["flags"]
    assert len(flags) > len(FEATURES), "the operator adds flags of its own"
