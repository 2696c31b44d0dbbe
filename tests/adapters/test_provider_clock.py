"""How old the answers of a provider are: by its `Date`, by `Age`, and by the progress of its clock (R10, R14).

Not here: how a provider is reached (test_provider_client.py), and what an answer contains (test_prometheus.py).
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import formatdate

import pytest

from adapters.providers import Answers, answering, measure, run, source, success, vector
from session_rollout.adapters.provider_client import Response
from session_rollout.adapters.provider_clock import APART, ProviderClock
from session_rollout.api.enums import CheckReason, Verdict
from session_rollout.core.observed import Measurement
from session_rollout.errors import ProviderFailed

DAY = 86_400.0
NOW = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)


@pytest.fixture
def answers() -> Iterator[Answers]:
    """A provider."""
    with answering() as server:
        yield server


# --- one answer


@dataclass(frozen=True)
class Dated:
    """The time of a sample, of the provider and of a cache, against our clock."""

    at: float
    date: float | None
    reason: CheckReason | None
    age: str | None = None
    seconds: float = 0.0  # how much older than the request the measurement is


SAMPLES = {
    "now": Dated(0, 0, None),
    "yesterday": Dated(-DAY, 0, CheckReason.STALE_SAMPLE),
    "tomorrow": Dated(DAY, 0, CheckReason.STALE_SAMPLE),
    "in the year 3e11": Dated(1e19, 0, CheckReason.STALE_SAMPLE),
    "our clock is an hour behind": Dated(3600, 3600, None),
    "our clock is an hour ahead": Dated(-3600, -3600, CheckReason.STALE_SAMPLE, seconds=3600),
    "our clock is a minute ahead": Dated(-60, -60, None, seconds=60),
    "a minute old": Dated(-60, 0, None, seconds=60),
    "from a cache": Dated(-DAY, -DAY, CheckReason.STALE_SAMPLE, age="86400", seconds=DAY),
    "from a cache that has its own Date": Dated(0, 0, CheckReason.STALE_SAMPLE, age="86400", seconds=DAY),
    "from a cache, of a minute ago": Dated(-60, -60, None, age="60", seconds=60),
    "without Date": Dated(-60, None, None, seconds=60),
    "without Date, yesterday": Dated(-DAY, None, CheckReason.STALE_SAMPLE),
}


@pytest.mark.parametrize("scalar", [False, True], ids=["vector", "scalar"])
@pytest.mark.parametrize("name", SAMPLES)
def test_time_of_the_sample_counts(answers: Answers, name: str, *, scalar: bool) -> None:
    """R10: a value from another time is no evidence; which clock is wrong does not matter."""
    row = SAMPLES[name]
    answers.date = row.date
    answers.fields.update({"Age": row.age} if row.age is not None else {})
    number = success({"resultType": "scalar", "result": [time.time() + row.at, "1"]})
    answers.body = number if scalar else vector("1", at=row.at)
    begun = datetime.now(UTC)
    measurement = measure(answers.server_port)
    assert measurement.reason is row.reason
    assert measurement.problem is (None if row.reason is None else Verdict.NO_DATA)
    assert abs((begun - measurement.time).total_seconds() - row.seconds) < 2


@pytest.mark.parametrize("age", [60, 86_400])
def test_time_of_an_empty_answer_counts(answers: Answers, age: int) -> None:
    """R10: no series a day ago is no evidence about now, whatever `onNoData` says; what is empty has no time of its own."""
    answers.body, answers.fields["Age"] = vector(), str(age)
    begun = datetime.now(UTC)
    measurement = measure(answers.server_port)
    assert measurement.is_absent is (age == 60)
    assert abs((begun - measurement.time).total_seconds() - age) < 2


def test_no_two_requests_are_equal(answers: Answers) -> None:
    """R10: a cache cannot have the answer to a request that it has never seen, and is asked for none."""
    answers.body = vector("1")

    async def twice() -> None:
        metrics = source(answers.server_port)
        for _ in range(2):
            assert (await metrics.query("default", "up")).value == 1

    run(twice())
    assert answers.asked == ["up", "up"]
    assert answers.targets[0] != answers.targets[1]
    assert {headers["Cache-Control"] for headers in answers.sent} == {"no-cache"}


def test_cache_that_keeps_the_date(answers: Answers) -> None:
    """R10: a body of ten minutes ago with its `Date` of then agrees with itself, and is no evidence, however often it comes."""
    answers.body, answers.cached = vector("0", at=-600), formatdate(time.time() - 600, usegmt=True)

    async def reasons() -> list[Measurement]:
        metrics = source(answers.server_port)
        return [await metrics.query("default", "up") for _ in range(3)]

    assert {each.reason for each in run(reasons())} == {CheckReason.STALE_SAMPLE}


def test_old_list_of_alert_rules(answers: Answers) -> None:
    """R10: a gate does not pass with rules that were loaded a day ago."""
    answers.body, answers.fields["Age"] = success({"groups": [{"rules": [{"name": "a"}]}]}), "86400"

    async def rules() -> frozenset[str]:
        return await source(answers.server_port).alert_rules("default")

    with pytest.raises(ProviderFailed) as failure:
        run(rules())
    assert failure.value.reason is CheckReason.STALE_SAMPLE


# --- the progress of a clock


class Provider:
    """Answers whose `Date` is by a clock of their own, and the age that they are found to have."""

    def __init__(self, skew: float = 0.0) -> None:
        self.passed, self.skew = 0.0, skew
        self.clock = ProviderClock(self)

    def now(self) -> datetime:
        """The operator's time."""
        return NOW + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        """The operator's monotonic clock."""
        return 5_000.0 + self.passed

    def date(self, ago: float = 0.0) -> datetime:
        """The header of an answer that is made now, or was some seconds ago."""
        return (self.now() + timedelta(seconds=self.skew - ago)).replace(microsecond=0)

    def age(self, date: datetime | None, query: str = "up", took: float = 0.02) -> float:
        """The age of an answer with this header."""
        sent = self.monotonic()
        self.passed += took
        response = Response(None, took, date, timedelta(0))
        return self.clock.aged(query, response, sent).cached.total_seconds()

    def ages(self, count: int, every: float, took: float = 0.02) -> list[float]:
        """The ages of answers that are made when they are asked for."""
        found = []
        for _ in range(count):
            found.append(self.age(self.date(), took=took))
            self.passed += every
        return found


@pytest.mark.parametrize("every", [1.0, 30.0, 86_400.0])
@pytest.mark.parametrize("skew", [0.0, 0.9, -2.0, 3_600.0])
def test_answers_of_now_have_no_age(skew: float, every: float) -> None:
    """R14: whatever the provider's clock is, as long as it is not behind; whole seconds of `Date` and slow answers are no age."""
    assert set(Provider(skew).ages(10, every, took=4.7)) == {0.0}


def test_answer_is_as_old_as_its_date_is_behind() -> None:
    """R10: a cache keeps one `Date` for ever, and so the answer grows old with the time that passes."""
    provider = Provider()
    date = provider.date()
    assert provider.age(date) == 0
    for passed in (10, 60, 61, 66, 3_600):
        provider.passed = passed
        assert passed - 2 < provider.age(date) <= passed + 1


def test_first_answer_is_measured_by_the_time_of_the_operator() -> None:
    """R10: the very first one of a cache is old, too."""
    provider = Provider()
    date = provider.date(ago=600)
    ages = []
    for _ in range(4):
        ages.append(provider.age(date))
        provider.passed += 2 * APART
    assert min(ages) >= 598


@pytest.mark.parametrize("every", [1.0, 30.0])
def test_clock_that_is_behind_is_known_when_it_has_advanced(every: float) -> None:
    """R14: a Prometheus whose clock is an hour behind is usable: its second answer to a query shows that its clock runs."""
    ages = Provider(-3_600).ages(8, every)
    unknown = [age for age in ages if age]
    assert min(unknown) >= 3_598
    assert len(unknown) * every <= APART + every
    assert set(ages[len(unknown) :]) == {0.0}


def test_clock_that_is_set_back_is_known_when_it_has_advanced() -> None:
    """R14: no guard is blind for the hour by which the clock was set back; and forward it is known at once."""
    provider = Provider()
    provider.ages(3, 30)
    provider.skew = -3_600
    ages = provider.ages(4, 30)
    assert [age > 3_500 for age in ages] == [True, False, False, False]
    provider.skew = 0
    assert set(provider.ages(3, 30)) == {0.0}


def test_answers_to_different_queries_prove_nothing() -> None:
    """R10: a cache with one old answer to each query looks like a clock that runs, if queries are not told apart."""
    provider, start = Provider(), Provider().date(ago=100)
    ages = []
    for number in range(6):
        ages.append(provider.age(start + timedelta(seconds=10 * number), query=f"query{number}"))
        provider.passed += 10
    assert min(ages) > 90


def test_new_answer_shows_that_an_older_one_is_of_a_cache() -> None:
    """R10: a cache that is filled every other time: its answers are half a minute old each, and no clock of their own."""
    provider, ages = Provider(), []
    for _ in range(4):
        date = provider.date()
        assert provider.age(date) == 0
        provider.passed += 30
        ages.append(provider.age(date))
        provider.passed += 30
    assert min(ages) > 28


def test_answer_without_a_date_is_left_to_the_time_of_its_sample() -> None:
    """R10: see the rows without `Date` above."""
    assert Provider().age(None) == 0


def test_age_of_a_cache_counts_if_it_is_more() -> None:
    """R10: `Age` and `Date` tell the same time twice."""
    provider = Provider()
    for age, expected in ((0, 599), (700, 700)):
        response = Response(None, 0.0, provider.date(ago=600), timedelta(seconds=age))
        found = provider.clock.aged("up", response, provider.monotonic()).cached.total_seconds()
        assert found == pytest.approx(expected, abs=0.1)


def test_memory_of_old_answers_is_bounded() -> None:
    """R10: however many queries a cache has old answers to."""
    provider = Provider()
    for number in range(2_500):
        provider.age(provider.date(ago=600), query=str(number), took=0)
    assert provider.age(provider.date(ago=600)) > 598
    assert len(provider.clock._behind) <= 1_000


def test_date_with_which_no_calendar_can_reckon_is_none(answers: Answers) -> None:
    """R10: the sample is dated by our clock then."""
    answers.body, answers.cached = vector("1"), "Thu, 26 Nov 99999999999999999999 17:00:00 GMT"
    assert measure(answers.server_port).value == 1
