"""What `rehearse` is told: options and a file, as a Scenario."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from session_rollout.api.quantities import BOUND_PATTERN, DURATION_PATTERN, bound, duration
from session_rollout.api.rollout import RolloutSpec
from session_rollout.cli.command import wrong
from session_rollout.simulation.rehearsal import Fault, Scenario

_WHERE: Final = r"(?P<phase>[a-z0-9-]+)/(?P<step>\d+)(?::(?P<lasts>\w+))?"
_FAIL: Final = re.compile(rf"(?P<metric>[a-z0-9-]+)(?:=(?P<value>[^@]+))?@{_WHERE}")
_OUTAGE: Final = re.compile(rf"(?P<time>\w+)@{_WHERE}")
_KEYS: Final = {"start", "approveAfter", "migrations", "failMigrations", "fail", "outage"}


def scenario_of(spec: RolloutSpec, **told: Any) -> Scenario:
    """The scenario. Raises Failure with what was found and what is allowed."""
    file = _read(told["scenario"]) if told.get("scenario") else {}
    start = told.get("start") or file.get("start")
    approve = told.get("approve_after") or file.get("approveAfter") or "0s"
    failing = frozenset((*told.get("failing", ()), *_strings(file, "failMigrations")))
    takes = {name: _length(text, f"migrations.{name}") for name, text in _migrations(file).items()}
    for name in (*failing, *takes):
        _known(name, [one.name for one in spec.migrations], "a migration")
    fails = [_fail(spec, text) for text in (*told.get("fails", ()), *_strings(file, "fail"))]
    outages = [_outage(spec, text) for text in (*told.get("outages", ()), *_strings(file, "outage"))]
    return Scenario(
        start=_moment(start) if start else datetime.now(UTC).replace(microsecond=0),
        faults=(*outages, *fails),
        approve_after=None if approve == "never" else _length(str(approve), "approve-after"),
        migrations=takes,
        failing=failing,
    )


def _moment(value: Any) -> datetime:
    from session_rollout.cli.status import moment_of

    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    return moment_of(str(value))


def _read(path: str) -> Mapping[str, Any]:
    from session_rollout.cli.yaml_source import read

    [document] = read(path)[:1]
    if unknown := sorted(set(document.data) - _KEYS):
        raise wrong(f"{path}: `{unknown[0]}` is no part of a scenario; allowed are {', '.join(sorted(_KEYS))}")
    return document.data


def _strings(file: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = file.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise wrong(f"`{key}` of the scenario is {value!r}, and it must be a list of texts as the option of that name takes")
    return tuple(value)


def _migrations(file: Mapping[str, Any]) -> Mapping[str, str]:
    value = file.get("migrations", {})
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise wrong(f"`migrations` of the scenario is {value!r}, and it must say how long each takes: {{name: 4h}}")
    return value


def _length(text: str, what: str) -> timedelta:
    if not re.fullmatch(DURATION_PATTERN, text):
        raise wrong(f"{what} is {text!r}; allowed is a number and one of ms, s, m, h, d, w")
    return duration(text)


def _place(spec: RolloutSpec, found: re.Match[str]) -> tuple[str, int, timedelta | None]:
    phase = _known(found["phase"], [one.name for one in spec.phases], "a phase")
    steps = next(len(one.steps) for one in spec.phases if one.name == phase)
    if not 1 <= int(found["step"]) <= steps:
        raise wrong(f"step {found['step']} of phase {phase} does not exist; allowed are 1 to {steps}")
    return phase, int(found["step"]), _length(found["lasts"], "the time after the colon") if found["lasts"] else None


def _known(name: str, known: list[str], what: str) -> str:
    if name not in known:
        raise wrong(f"{name} is not {what} of the spec; allowed are {', '.join(known) or 'none'}")
    return name


def _fail(spec: RolloutSpec, text: str) -> Fault:
    found = _FAIL.fullmatch(text)
    if found is None:
        raise wrong(f"--fail is {text!r}; allowed is METRIC@PHASE/STEP, with =VALUE after the metric and :TIME at the end")
    metric = _known(found["metric"], [one.name for one in spec.metrics], "a metric")
    phase, step, lasts = _place(spec, found)
    return Fault(phase, step, metric, _value(found["value"]), lasts)


def _value(text: str | None) -> Decimal | None:
    if text is None:
        return None
    if not re.fullmatch(BOUND_PATTERN, text):
        raise wrong(f"the value {text!r} of --fail must be a number with an optional unit of %, ms, s")
    return bound(text)


def _outage(spec: RolloutSpec, text: str) -> Fault:
    found = _OUTAGE.fullmatch(text)
    if found is None:
        raise wrong(f"--outage is {text!r}; allowed is TIME@PHASE/STEP, such as 2h@checkout/1")
    phase, step, _ = _place(spec, found)
    return Fault(phase, step, lasts=_length(found["time"], "the time of --outage"))
