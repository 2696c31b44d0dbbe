"""Strings that carry a quantity: durations, percentages, bounds.

The API holds no floats. Users write what they would write in PromQL or Go (`30s`, `1h30m`, `0.5`, `99%`), and the
operator reads it with `Decimal`. The models use the types, the core uses the functions.
"""

import functools
import re
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from session_rollout.api.base import rules

MILLISECONDS: Final = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
DURATION_PATTERN: Final = "^" + "".join(f"([0-9]{{1,8}}{unit})?" for unit in MILLISECONDS) + "$"
DURATION_LENGTH: Final = 20
PERCENT_PATTERN: Final = r"^(100|[0-9]{1,2}(\.[0-9])?)$"
BOUND_PATTERN: Final = r"^-?[0-9]{1,15}(\.[0-9]{1,6})?(%|ms|s)?$"
TOLERANCE_PATTERN: Final = r"^[0-9]{1,15}(\.[0-9]{1,6})?(%|ms|s)?$"

LONGEST: Final = "365d"
_UNITS_ALLOWED: Final = (
    "whole numbers with the units w, d, h, m, s and ms, each at most once and in this order, such as `90m`, `1h30m` or `1d12h`"
)
DIGITS_SHOWN: Final = 4


@functools.lru_cache(maxsize=4096)  # each decision reads those of the whole spec
def duration(text: str) -> timedelta:
    """Length of a duration such as `30s`, `1h30m` or `2w`. Raises ValueError with what is allowed."""
    if not text or not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError(f"must be a duration: {_UNITS_ALLOWED}")
    return timedelta(milliseconds=sum(int(n) * MILLISECONDS[unit] for n, unit in re.findall(r"([0-9]+)([a-z]+)", text)))


def milliseconds(path: str) -> str:
    """CEL for the length of the duration at `path` in milliseconds."""
    units = ", ".join(f"'{unit}': {length}" for unit, length in MILLISECONDS.items())
    parts = f"{path}.findAll('[0-9]+[a-z]+')"
    return f"{parts}.map(part, int(part.find('[0-9]+')) * {{{units}}}[part.find('[a-z]+')]).sum()"


def _duration(shortest: str, longest: str = LONGEST) -> tuple[AfterValidator, WithJsonSchema]:
    """What makes a string a duration from `shortest` to `longest`."""
    least, most = (duration(text) // timedelta(milliseconds=1) for text in (shortest, longest))
    message = f"must be a duration from {shortest} to {longest}: {_UNITS_ALLOWED}"
    length = milliseconds("self")

    def check(text: str) -> str:
        if not duration(shortest) <= duration(text) <= duration(longest):
            raise ValueError(message)
        return text

    schema = {
        "type": "string",
        "pattern": DURATION_PATTERN,
        "minLength": 2,
        "maxLength": DURATION_LENGTH,
        **rules((f"self.matches('{DURATION_PATTERN}') && {length} >= {least} && {length} <= {most}", message)),
    }
    return AfterValidator(check), WithJsonSchema(schema)


def _text_of_number(value: Any) -> Any:
    """Let `percent: 10` through as text; a float needs quotes, as in the API server's schema."""
    return str(value) if type(value) is int else value


# From one millisecond to one year.
_LENGTH, _LENGTH_OR_ZERO = _duration("1ms"), _duration("0s")
Duration = Annotated[str, _LENGTH[0], _LENGTH[1]]
# The same, where `0s` has a meaning: immediately, or not at all.
DurationOrZero = Annotated[str, _LENGTH_OR_ZERO[0], _LENGTH_OR_ZERO[1]]
# The period of a baseline, and how much of it one reading covers: never more than the period.
_SEASON, _WINDOW = _duration("1h", "31d"), _duration("1m", "1h")
SeasonLength = Annotated[str, _SEASON[0], _SEASON[1]]
SeasonWindow = Annotated[str, _WINDOW[0], _WINDOW[1]]
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
        }
    ),
]
# A fixed bound, which may be negative, and a tolerance around another value, which may not.
Bound = Annotated[str, Field(pattern=BOUND_PATTERN, max_length=26)]
Tolerance = Annotated[
    str,
    Field(
        pattern=TOLERANCE_PATTERN,
        max_length=26,
        json_schema_extra=rules(
            ("!self.startsWith('-')", "must not be negative; to require a rise, use `minIncrease`"),
        ),
    ),
]

# The largest rate of bad events with a feature, against that without it: a factor, and percentage points.
Times = Annotated[str, Field(pattern=r"^[0-9]{1,3}(\.[0-9]{1,4})?$", max_length=8)]
Points = Annotated[str, Field(pattern=r"^(100|[0-9]{1,2}(\.[0-9]{1,4})?)%$", max_length=8)]

# A share of rollouts: more than none, and less than all.
Probability = Annotated[str, Field(pattern=r"^([1-9][0-9]?(\.[0-9]{1,4})?|0\.0{0,3}[1-9][0-9]{0,3})%$", max_length=8)]

# A share of users who get a feature last, in tenths of a percent.
Holdback = Annotated[str, Field(pattern=r"^(20(\.0)?|1?[0-9](\.[0-9])?)%$", max_length=5)]

PassShare = Annotated[str, Field(pattern=r"^(100|[0-9]{1,2}(\.[0-9])?)%$", max_length=5)]


def format_duration(length: timedelta) -> str:
    """The human-readable duration, in at most two units: `3.8 s`, `1 h 30 min`, `1 d 12 h`."""
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


def estimate_text(length: timedelta) -> str:
    """The human-readable duration of what is only estimated: in whole minutes, and at least one."""
    minute = timedelta(minutes=1)
    return format_duration(max(round(length / minute), 1) * minute)


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
    """A measured value in the unit of its bound, with four significant digits: `1.3%`."""
    scale = {"%": Decimal(100), "ms": Decimal(1000)}.get(unit, Decimal(1))
    rounded = (value * scale).normalize()
    if rounded.is_finite() and len(rounded.as_tuple().digits) > DIGITS_SHOWN:
        rounded = Decimal(f"{rounded:.{DIGITS_SHOWN}g}")
    return f"{rounded.normalize():f}{unit}" if rounded.is_finite() else str(rounded)
