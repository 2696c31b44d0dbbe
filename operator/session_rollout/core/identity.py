"""Which check a record is about: what is measured, and the bound. A name, and how a query is written, are only names for it."""

from collections.abc import Sequence
from typing import Final

from session_rollout.api.base import sha256_of
from session_rollout.api.checks import Check, ComparedTo, Gate
from session_rollout.api.enums import CheckKind
from session_rollout.api.quantities import bound, duration, unit_of
from session_rollout.api.status_records import CheckRecord
from session_rollout.core.context import DecisionContext

LENGTH: Final = 16
BOUNDS: Final = ("above", "below")
TOLERANCES: Final = ("max_increase", "max_decrease", "min_increase")


def sources_of(context: DecisionContext, name: str) -> tuple[str, str]:
    """Fingerprints of what a metric measures: by its query in one spelling, and as it is written, which older records have."""
    metric = context.spec.metric(name)
    written = metric.model_dump_json(include={"query", "cohorts", "window"}) if metric is not None else ""
    window = duration(metric.window) if metric is not None and metric.window is not None else None
    measured = f"{context.observed.queries.get(name, written)} {window}"
    return fingerprint(f"{context.spec.prometheus} {measured}"), fingerprint(f"{context.spec.prometheus} {written}")


def definition_of(check: Check | Gate) -> str:
    """Fingerprint of the bound of a check, however its number is written."""
    limits = [f"{name} {bound(text).normalize()}" for name in BOUNDS if (text := getattr(check, name)) is not None]
    limits += [f"between {bound(text).normalize()}" for text in check.between or ()]
    if isinstance(check, Check):
        known = ((name, text) for name in TOLERANCES if (text := getattr(check, name)) is not None)
        limits += [f"{check.compared_to} {name} {tolerance_text(text)}" for name, text in known]
        if check.compared_to is ComparedTo.CONTROL and len(limits) == 0:
            limits += [f"{name} {bound(text).normalize()}" for name, text in check.tolerated.to_wire().items()]
    return fingerprint(repr(limits))


def tolerance_text(text: str) -> str:
    """A tolerance in one spelling: its number, and whether it is a percentage."""
    return f"{bound(text).normalize()} {unit_of(text) == '%'}"


def fingerprint(text: str) -> str:
    """The first hexadecimal digits of the hash of a text."""
    return sha256_of(text).removeprefix("sha256:")[:LENGTH]


def renamed(
    context: DecisionContext, kind: CheckKind, checks: Sequence[Check]
) -> tuple[tuple[CheckRecord, ...], tuple[CheckRecord, ...]]:
    """The records of these checks under the names that they have now, and those of no check.

    A record belongs to a check that measures the same against the same bound, if possible to that of its name; else to that of
    its name, whose bound or query was changed.
    """
    free = {record.name: record for record in context.checks_of(kind)}
    continued: dict[str, CheckRecord] = {}
    for same, named in ((True, True), (True, False), (False, True)):
        for check in checks:
            known = (free.get(check.name),) if named else tuple(free.values())
            record = next((each for each in known if each and (not same or _is_same(context, check, each))), None)
            if record is not None and check.name not in continued:
                continued[check.name] = _named(free.pop(record.name), check.name)
    return tuple(continued.values()), tuple(free.values())


def _is_same(context: DecisionContext, check: Check, record: CheckRecord) -> bool:
    return record.definition == definition_of(check) and record.source in sources_of(context, check.metric)


def _named(record: CheckRecord, name: str) -> CheckRecord:
    about = record.message.removeprefix(record.name)
    return record.updated(name=name, message=about if about == record.message else f"{name}{about}")
