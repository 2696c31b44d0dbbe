"""Strings that carry a quantity: durations, percentages, bounds.

The API holds no floats: YAML authors write what they would write in PromQL or say aloud (`30s`, `0.5`, `99%`),
and the operator reads it with `Decimal`. Used by the models (patterns) and by the core (parsing).
"""

from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, WithJsonSchema

DURATION_PATTERN: Final = r"^[0-9]{1,6}(ms|s|m|h|d|w)$"
PERCENT_PATTERN: Final = r"^(100|[0-9]{1,2}(\.[0-9])?)$"
BOUND_PATTERN: Final = r"^-?[0-9]{1,15}(\.[0-9]{1,6})?(%|ms|s)?$"

DIGITS_SHOWN: Final = 4
MILLISECONDS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def _text_of_number(value: Any) -> Any:
    """Let `percent: 10` through as text; a float needs quotes, as in the API server's schema."""
    return str(value) if type(value) is int else value


Duration = Annotated[
    str,
    Field(pattern=DURATION_PATTERN, max_length=8, description="A number and one unit of ms, s, m, h, d, w; `90m`."),
]
Percent = Annotated[
    str,
    BeforeValidator(_text_of_number),
    Field(pattern=PERCENT_PATTERN, max_length=4),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maximum": 100,
            "minimum": 0,
            "maxLength": 4,
            "pattern": PERCENT_PATTERN,
            "description": 'Share of users in percent: an integer from 0 to 100, or a string with one decimal ("0.5").',
        }
    ),
]
Bound = Annotated[
    str,
    Field(
        pattern=BOUND_PATTERN,
        max_length=26,
        description='A number as a string, with an optional unit: "0.1%", "500ms", "5s", "10737418240".',
    ),
]


def duration(text: str) -> timedelta:
    """Length of a Prometheus-style duration such as `30s` or `2w` (milliseconds are the smallest unit)."""
    unit = text.lstrip("0123456789")
    return timedelta(milliseconds=int(text.removesuffix(unit)) * MILLISECONDS[unit])


def format_duration(length: timedelta) -> str:
    """The duration as people read it, in at most two units: `3.8 s`, `1 h 30 min`, `1 d 12 h`."""
    seconds = round(max(length.total_seconds(), 0), 1)
    if seconds < 1:
        return f"{round(length / timedelta(milliseconds=1))} ms" if seconds else "0 s"
    if seconds < 60 and seconds % 1:  # noqa: PLR2004 - seconds of a minute
        return f"{seconds:g} s"
    rest, parts = round(seconds), []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        number, rest = divmod(rest, size)
        parts += [f"{number} {unit}"] if number else []
    return " ".join(parts[:2])


def bound(text: str) -> Decimal:
    """Value of a bound in base units: ratio for `%`, seconds for `ms` and `s`, the bare number otherwise."""
    for suffix, scale in (("%", Decimal("0.01")), ("ms", Decimal("0.001")), ("s", Decimal(1))):
        if text.endswith(suffix):
            return Decimal(text.removesuffix(suffix)) * scale
    return Decimal(text)


def unit_of(text: str) -> str:
    """The unit a bound was written in: `%`, `ms`, `s` or nothing."""
    return text.lstrip("-0123456789.")


def show(value: Decimal, unit: str) -> str:
    """A measured value in the unit of the bound it is held against, four significant digits: `1.3%`."""
    scale = {"%": Decimal(100), "ms": Decimal(1000)}.get(unit, Decimal(1))
    rounded = (value * scale).normalize()
    if rounded.is_finite() and len(rounded.as_tuple().digits) > DIGITS_SHOWN:
        rounded = Decimal(f"{rounded:.{DIGITS_SHOWN}g}")
    return f"{rounded.normalize():f}{unit}" if rounded.is_finite() else str(rounded)
