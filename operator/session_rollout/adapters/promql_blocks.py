"""PromQL that counts the events of one block, by cohort or of all users: increases of counters, and what new counters begin with.

Prometheus estimates an increase from samples within the range alone, so that the range is one scrape longer than the block, and
the result is scaled. A counter that is born with its first event has no increase. The counters of a new feature are all of
this kind: in the first hour most of its failures would not be seen, and only its own. They count with their value, if the operator
can be sure that the counter is new: Prometheus reached the target before the block, or its process began in the block. After a
gap of Prometheus, or in a target that it found late, an old counter would count with its whole history.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

import promql_parser

from session_rollout.adapters.promql import parse
from session_rollout.adapters.promql_spelling import length_text, spelling

VARIANT: Final = "variant"
CELL: Final = "cell"
PART, BAD, TOTAL = "part", "bad", "total"
BY_COHORT: Final = (VARIANT, CELL)
OF_ALL: Final = (CELL,)
TARGET: Final = ("job", "instance")
REMEMBERED: Final = timedelta(hours=1)  # a counter that was there in the hour before the block is not new
PLAIN: Final = 'must select a counter and do nothing else, such as `sessions_total{result="failure"}`'


def counter_of(text: str, labels: tuple[str, ...] = BY_COHORT) -> str:
    """The selector of a counter in one spelling, which leaves these labels alone. Raises ValueError with a sentence."""
    return spelling(_selector(text, labels))


def _selector(text: str, labels: tuple[str, ...]) -> Any:
    tree = parse(text)
    if not isinstance(tree, promql_parser.VectorSelector) or tree.offset is not None or tree.at is not None:
        raise ValueError(PLAIN)
    for matcher in (*tree.matchers.matchers, *(each for group in tree.matchers.or_matchers for each in group)):
        if matcher.name in labels:
            raise ValueError(f"must not select by the label `{matcher.name}`: the operator groups by it")
    return tree


def buckets(histogram: str, over: timedelta, labels: tuple[str, ...] = BY_COHORT) -> tuple[str, str]:
    """Counters of all observations of a histogram, and of those that are not over a bound. Raises ValueError with a sentence.

    Of a bound of one second, some clients write `le="1"`, and others `le="1.0"`.
    """
    tree = _selector(histogram, labels)
    if tree.name is None:
        raise ValueError('must select a histogram by its name, such as `page_load_seconds{page="start"}`')
    named, seconds = f'__name__="{tree.name}"', f"{over.total_seconds():.3f}".rstrip("0").rstrip(".")
    bound = f'le="{seconds}"' if "." in seconds else f'le=~"{seconds}([.]0+)?"'
    text = spelling(tree)
    observed = text.replace(named, f'__name__="{tree.name}_count"')
    return observed, counter_of(text.replace(named, f'__name__="{tree.name}_bucket", {bound}'), labels)


@dataclass(frozen=True)
class CohortQueries:
    """PromQL for the bad and for all events of a block, by `labels`: variant and cell, or the cell alone.

    For a mean, the sum of their values takes the place of bad events.
    """

    bad: str
    total: str
    block: timedelta
    scrape: timedelta
    labels: tuple[str, ...] = BY_COHORT
    of_values: bool = False  # `bad` sums up the values of events

    @property
    def both(self) -> str:
        """Bad and all events in one query, so that no answer has one without the other. The label `part` says which they are."""
        bad, total = (
            f'label_replace({query}, "{PART}", "{part}", "", "")' for part, query in ((BAD, self.bad), (TOTAL, self.total))
        )
        return f"{bad} or {total}"

    @classmethod
    def of_counters(
        cls, bad: str, total: str, block: timedelta, scrape: timedelta, labels: tuple[str, ...] = BY_COHORT
    ) -> "CohortQueries":
        """Queries of two counters. Raises ValueError with a sentence."""
        failed, counted = (increases(counter_of(each, labels), block, scrape, labels) for each in (bad, total))
        return cls(failed, counted, block, scrape, labels)

    @classmethod
    def of_sums(cls, values: str, count: str, block: timedelta, scrape: timedelta) -> "CohortQueries":
        """Queries of a sum of values and their number. Raises ValueError with a sentence."""
        return replace(cls.of_counters(values, count, block, scrape), of_values=True)

    @classmethod
    def of_histogram(
        cls, histogram: str, over: timedelta, block: timedelta, scrape: timedelta, labels: tuple[str, ...] = BY_COHORT
    ) -> "CohortQueries":
        """Queries of a histogram: observations over a bound are bad. Raises ValueError with a sentence."""
        observed, within = (increases(each, block, scrape, labels) for each in buckets(histogram, over, labels))
        return cls(f"{observed} - ({within} or {observed} * 0)", observed, block, scrape, labels)


def increases(counter: str, block: timedelta, scrape: timedelta, labels: tuple[str, ...] = BY_COHORT) -> str:
    """The events of the block that ends at the time of the query, by these labels. `counter` is from `counter_of`."""
    reach = block + scrape
    known = f"present_over_time({counter}[{length_text(REMEMBERED)}] offset {length_text(block)})"
    grown = f"increase({counter}[{length_text(reach)}]) * {block / reach!r} and {known}"
    sure = f"up offset {length_text(block)} == 1 or time() - process_start_time_seconds < {reach.total_seconds()!r}"
    born = f"({counter} unless {known}) and on ({', '.join(TARGET)}) ({sure})"
    return f"sum by ({', '.join(labels)}) (({grown}) or ({born}))"
