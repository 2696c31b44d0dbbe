"""Input of `rehearse`: options and a YAML file, combined into one Scenario."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from session_rollout.api.quantities import BOUND_PATTERN, bound
from session_rollout.api.rollout import RolloutSpec
from session_rollout.cli.command import usage_error
from session_rollout.cli.common import listed, parse_duration, parse_time
from session_rollout.cli.yaml_source import read
from session_rollout.simulation.rehearsal import Fault, Scenario

_PLACE: Final = r"(?P<phase>[a-z0-9-]+)/(?P<step>\d+)(?::(?P<lasts>\w+))?"
_FAIL: Final = re.compile(rf"(?P<metric>[a-z0-9-]+)(?:=(?P<value>[^@]+))?@{_PLACE}")
_OUTAGE: Final = re.compile(rf"(?P<time>\w+)@{_PLACE}")
_KEYS: Final = ("start", "approveAfter", "migrations", "failMigrations", "fail", "outage")
NEVER: Final = "never"


@dataclass(frozen=True)
class ScenarioOptions:
    """Options of the command."""

    fail: tuple[str, ...] = ()
    outage: tuple[str, ...] = ()
    fail_migrations: tuple[str, ...] = ()
    scenario: str | None = None  # a file
    start: str | None = None
    approve_after: str | None = None


def scenario_of(spec: RolloutSpec, options: ScenarioOptions) -> Scenario:
    """The scenario. Raises Failure with the value found and what is allowed."""
    file = _read(options.scenario) if options.scenario else {}
    start = options.start or file.get("start")
    approve = str(options.approve_after or file.get("approveAfter") or "0s")
    failing = frozenset((*options.fail_migrations, *_texts(file, "failMigrations")))
    times = {name: _duration(text, f"migrations.{name}") for name, text in _migrations(file).items()}
    for name in (*failing, *times):
        _require_known(name, [migration.name for migration in spec.migrations], "migration")
    outages = [_outage(spec, text) for text in (*options.outage, *_texts(file, "outage"))]
    fails = [_fail(spec, text) for text in (*options.fail, *_texts(file, "fail"))]
    return Scenario(
        start=_time(str(start)) if start else datetime.now(UTC).replace(microsecond=0),
        faults=(*outages, *fails),
        approve_after=None if approve == NEVER else _duration(approve, "--approve-after"),
        migrations=times,
        failing=failing,
    )


# --- the file


def _read(path: str) -> Mapping[str, Any]:
    document = read(path)[0]
    if unknown := sorted(str(key) for key in document.data if key not in _KEYS):
        raise usage_error(f"{path}: unknown key `{unknown[0]}`; keys of a scenario: {listed(_KEYS)}")
    return document.data


def _texts(file: Mapping[str, Any], key: str) -> Sequence[str]:
    value = file.get(key, [])
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise usage_error(f"`{key}` of the scenario is {value!r}; it must be a list of strings in the form of the option")
    return value


def _migrations(file: Mapping[str, Any]) -> Mapping[str, str]:
    value = file.get("migrations", {})
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise usage_error(f"`migrations` of the scenario is {value!r}; it must map names to durations, such as {{tables: 4h}}")
    return value


# --- values


def _time(text: str) -> datetime:
    try:
        return parse_time(text)
    except ValueError as error:
        raise usage_error(f"--start: {error}") from error


def _duration(text: str, option: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise usage_error(f"{option}: {error}") from error


def _fail(spec: RolloutSpec, text: str) -> Fault:
    match = _FAIL.fullmatch(text)
    if match is None:
        raise usage_error(f"--fail is {text!r}; use METRIC[=VALUE]@PHASE/STEP[:TIME], such as error-rate=5%@checkout/2:30m")
    metric = _require_known(match["metric"], [candidate.name for candidate in spec.metrics], "metric")
    phase, step = _place(spec, match)
    lasts = _duration(match["lasts"], "--fail") if match["lasts"] else None
    return Fault(phase, step, metric, _value(match["value"]), lasts)


def _outage(spec: RolloutSpec, text: str) -> Fault:
    match = _OUTAGE.fullmatch(text)
    if match is None:
        raise usage_error(f"--outage is {text!r}; use TIME@PHASE/STEP, such as 2h@checkout/1")
    phase, step = _place(spec, match)
    return Fault(phase, step, lasts=_duration(match["time"], "--outage"))


def _place(spec: RolloutSpec, match: re.Match[str]) -> tuple[str, int]:
    phase = _require_known(match["phase"], [candidate.name for candidate in spec.phases], "phase")
    steps = next(len(candidate.steps) for candidate in spec.phases if candidate.name == phase)
    number = int(match["step"])
    if not 1 <= number <= steps:
        raise usage_error(f"phase {phase} has no step {number}; it has steps 1 to {steps}")
    return phase, number


def _value(text: str | None) -> Decimal | None:
    if text is None:
        return None
    if not re.fullmatch(BOUND_PATTERN, text):
        raise usage_error(f"--fail has the value {text!r}; it must be a number with an optional unit %, ms or s")
    return bound(text)


def _require_known(name: str, known: Sequence[str], kind: str) -> str:
    if name not in known:
        raise usage_error(f"there is no {kind} {name}; known: {listed(known)}")
    return name
