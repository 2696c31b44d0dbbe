"""Rollouts of seconds whose writes are made to fail, and what must be the same at their end.

A `Scenario` has a moment from which on its writes are numbered: when the rollout is created, when its metric breaks, when an
action is created, or when it is deleted. `play` runs many of them at once, each in a namespace of its own with the faults
that are planned for it, and compares each end with that of the undisturbed run.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lab.fault_proxy import Fault
from lab.fault_site import FLAG_SET, FaultSite
from lab.kube import Object
from lab.lab import PATIENCE, until

NAME: Final = "story"
GOOD, BREACH = "0.001", "0.5"
SETUP_SECONDS = 90.0
END_SECONDS = 90.0
PROMISED_SECONDS = 2.0  # from what an operator sees to the document that switches off
PROMISED_REQUESTS = 30  # as long as so many requests take in the same run, on a machine that has more to do
NOTHING_MORE_SECONDS = 6.0  # an operator that has not written for so long after the end does not write any more
ACTIONS = "/apis/sessionrollout.dev/v1alpha1/namespaces/{}/sessionrolloutactions"
ROLLOUTS = "/apis/sessionrollout.dev/v1alpha1/namespaces/{}/sessionrollouts"
_numbers = itertools.count(1)
# What makes a rollout take seconds; the tests have no other timing.
FAST: Object = {"checkInterval": "1s", "propagation": "0s"}
LONG = [{"percent": 50, "hold": "1h"}]
SHORT = [{"percent": 50, "hold": "2s"}, {"percent": 100, "hold": "1s"}]


def rollout(namespace: str, steps: list[Object] = LONG, guards: int = 1, **spec: Any) -> Object:
    """A rollout of two features; its metrics ask the scripted Prometheus for the namespace's value."""
    query = f'max_over_time(errors{{run="{namespace}"}}[1s])'
    whole = {
        "flagSet": FLAG_SET,
        **FAST,
        "features": [{"name": "alpha"}, {"name": "beta"}],
        "metrics": [{"name": "errors", "query": query}],
        "phases": [
            {
                "name": "one",
                "features": ["alpha", "beta"],
                "steps": steps,
                "criteria": [{"name": "errors", "metric": "errors", "below": "1%"}],
            }
        ],
        "guards": [{"name": f"errors-{number}", "metric": "errors", "below": "5%"} for number in range(guards)],
        **spec,
    }
    kind = {"apiVersion": "sessionrollout.dev/v1alpha1", "kind": "SessionRollout"}
    return {**kind, "metadata": {"name": NAME, "namespace": namespace}, "spec": whole}


def shares(document: Object) -> dict[str, float]:
    """How much of the users each feature has, in percent; -1 while an emergency keeps it off."""
    return {name: _share(flag) for name, flag in document.get("flags", {}).items() if not name.startswith("sessionrollout")}


def _share(flag: Object) -> float:
    if "targeting" not in flag:
        return -1.0
    match flag["targeting"]["if"]:
        case [*_, {"fractional": [_, [_, on], [_, off]]}, "off-chosen"]:
            return float(100 * on / (on + off))
        case [*_, last]:
            return 100.0 if last == "on" else 0.0
    raise AssertionError(flag)


@dataclass
class Run:
    """One rollout in its namespace, with the faults that are planned for its writes."""

    scenario: "Scenario"
    faults: tuple[Fault, ...] = ()
    order: str = ""  # of the writes of operators A and B
    namespace: str = ""
    begun: float = 0.0
    end: Object = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    happened: bool = False  # every fault has
    ended: float = 0.0  # since when its end is the expected one

    def __str__(self) -> str:
        return " ".join((self.scenario.name, *(str(fault) for fault in self.faults), self.order))


@dataclass(frozen=True)
class Scenario:
    """What happens to a rollout, up to the moment from which writes count, and at that moment."""

    name: str
    spec: Callable[[str], Object]
    stimulus: Callable[[FaultSite, str], Any]
    ended: Callable[[Object], bool]
    prepare: Callable[[FaultSite, str], Any] = lambda _site, _namespace: None
    off_for_good: bool = True  # once every feature is off after the stimulus, none is on again


def look(site: FaultSite, namespace: str) -> Object:
    """What users and clients see of a rollout at its end; times, revisions and sentences aside."""
    stored = site.lab.kube.find(f"{ROLLOUTS.format(namespace)}/{NAME}")
    status = (stored or {}).get("status", {})
    current = status.get("current", {})
    answers = [
        (item["spec"]["action"], (answer := item.get("status", {})).get("accepted"), answer.get("reason"))
        for item in site.lab.kube.get(ACTIONS.format(namespace))["items"]
    ]
    return {
        "exists": stored is not None,
        "features": shares(site.lab.document(FLAG_SET, namespace)),
        "outcome": status.get("outcome"),
        "place": [current.get(name) for name in ("stage", "phase", "step", "percent", "groups")],
        "disabled": sorted(record["feature"] for record in status.get("flags", {}).get("disabled", [])),
        "phases": {phase["name"]: phase["state"] for phase in status.get("phases", [])},
        "conditions": {condition["type"]: condition["status"] for condition in status.get("conditions", [])},
        "held": current.get("holdUntil") is not None,
        "answers": sorted(answers, key=str),
        "refusals": status.get("refusals", []),
    }


# --- the scenarios


def hold(site: FaultSite, namespace: str) -> None:
    """Wait until the hold has begun."""
    until(lambda: look(site, namespace)["held"], SETUP_SECONDS, f"{namespace} holding")


def act(site: FaultSite, namespace: str, action: str, **spec: Any) -> str:
    """Create an action, at once; its name."""
    body = {
        "apiVersion": "sessionrollout.dev/v1alpha1",
        "kind": "SessionRolloutAction",
        "metadata": {"name": action.lower(), "namespace": namespace},
        "spec": {"rollout": NAME, "action": action, "reason": "drill", **spec},
    }
    site.lab.kube.create(ACTIONS.format(namespace), body)
    return action.lower()


def disabled(site: FaultSite, namespace: str) -> None:
    """Wait until an emergency has taken both features from everybody, and is answered."""
    hold(site, namespace)
    act(site, namespace, "EmergencyDisable")

    def off() -> bool:
        seen = look(site, namespace)
        return set(seen["features"].values()) == {-1.0} and seen["answers"][0][1] is not None

    until(off, SETUP_SECONDS, f"{namespace} disabled")


def _create(site: FaultSite, namespace: str, spec: Callable[[str], Object]) -> None:
    """The rollout, with a metric that is fine."""
    site.prometheus.set(namespace, GOOD)
    site.lab.apply(spec(namespace))


def _promoted(namespace: str) -> Object:
    return rollout(namespace, SHORT, bake="1s")


def _break(site: FaultSite, namespace: str) -> None:
    site.prometheus.set(namespace, BREACH)


def _delete(site: FaultSite, namespace: str) -> None:
    site.lab.kube.delete(f"{ROLLOUTS.format(namespace)}/{NAME}")


def _answered(seen: Object, share: float, count: int) -> bool:
    settled = [answer for answer in seen["answers"] if answer[1] is not None]
    return set(seen["features"].values()) == {share} and len(settled) == count


PROMOTE = Scenario(
    "promote",
    _promoted,
    stimulus=lambda site, namespace: _create(site, namespace, _promoted),
    ended=lambda seen: seen["outcome"] == "Promoted",
    off_for_good=False,
)
BREACH_SCENARIO = Scenario("breach", rollout, prepare=hold, stimulus=_break, ended=lambda seen: seen["outcome"] == "RolledBack")
EMERGENCY = Scenario(
    "emergency",
    rollout,
    prepare=hold,
    stimulus=lambda site, namespace: act(site, namespace, "EmergencyDisable"),
    ended=lambda seen: _answered(seen, -1.0, 1),
)
ENABLE = Scenario(
    "enable",
    rollout,
    prepare=disabled,
    stimulus=lambda site, namespace: act(site, namespace, "EmergencyEnable"),
    ended=lambda seen: _answered(seen, 50.0, 2),
    off_for_good=False,
)
DELETE = Scenario(
    "delete",
    lambda namespace: rollout(namespace, deletionPolicy="Off"),
    prepare=hold,
    stimulus=_delete,
    ended=lambda seen: not seen["exists"] and set(seen["features"].values()) == {0.0},
)
SCENARIOS: Final = {each.name: each for each in (PROMOTE, BREACH_SCENARIO, EMERGENCY, ENABLE, DELETE)}


# --- running them


def play(
    site: FaultSite, runs: Sequence[Run], expected: dict[str, Object], seconds: float = END_SECONDS, *, apart: bool = False
) -> None:
    """Run all at once; their ends and what was wrong with them are in them afterwards.

    Apart: what happens to one begins after the end of the one before, because a kill ends the operator of all of them.
    """
    for run in runs:
        run.namespace = f"f-{next(_numbers)}-{run.scenario.name}"
        site.namespace(run.namespace)
        if run.scenario is not PROMOTE:
            _create(site, run.namespace, run.scenario.spec)
    for run in runs:
        run.scenario.prepare(site, run.namespace)
    for run in runs:
        for operator in site.operators:
            site.proxy.arm(operator, run.namespace, run.faults if operator == "A" else (), run.order)
        run.begun = time.monotonic()
        run.scenario.stimulus(site, run.namespace)
        if apart:
            _wait(site, [run], expected, seconds)
    _wait(site, runs, expected, seconds)
    site.keep_running()
    for run in runs:
        run.end = look(site, run.namespace)
        run.problems += _problems(site, run, expected)


def _wait(site: FaultSite, runs: Iterable[Run], expected: dict[str, Object], seconds: float) -> None:
    """Until every run has ended as it should, with all its faults behind it, or the time of an idle machine is over."""
    deadline, waiting = time.monotonic() + seconds * PATIENCE, list(runs)
    while waiting and time.monotonic() < deadline:
        site.keep_running()
        waiting = [run for run in waiting if not _through(site, run, expected)]
        time.sleep(1)


def _through(site: FaultSite, run: Run, expected: dict[str, Object]) -> bool:
    """Whether the run is at its end with its faults behind it, or has been there for a while without them."""
    seen = look(site, run.namespace)
    ended = seen == expected[run.scenario.name] if run.scenario.name in expected else run.scenario.ended(seen)
    run.happened = len(site.proxy.fired("A", run.namespace)) == len(run.faults)
    run.ended = (run.ended or time.monotonic()) if ended else 0.0
    return ended and (run.happened or time.monotonic() - run.ended > NOTHING_MORE_SECONDS)


def _problems(site: FaultSite, run: Run, expected: dict[str, Object]) -> Iterable[str]:
    if not run.happened:
        yield "the planned fault did not happen"
    want = expected.get(run.scenario.name, run.end)
    if not run.scenario.ended(run.end):
        yield f"no end: {run.end}"
    elif different := {name: (run.end[name], want[name]) for name in want if run.end[name] != want[name]}:
        yield f"another end (found, expected): {different}"
    yield from (f"on again: {each}" for each in switched_on_again(site, run))


def switched_on_again(site: FaultSite, run: Run) -> Iterable[str]:
    """Documents, after the one that switched everything off, that switch something on; for `enable`, any on after on."""
    off, highest = 0.0, -1.0
    for seen, document in list(site.watch.documents[run.namespace]):
        given = max(shares(document).values())
        if seen < run.begun:
            continue
        if run.scenario.off_for_good and off and given > 0:
            yield f"{shares(document)} {seen - off:.1f} s after it was off"
        if not run.scenario.off_for_good and given < highest:
            yield f"{shares(document)} after {highest}%"
        off = off or (seen if given <= 0 else 0.0)
        highest = max(highest, given)


def off_since(site: FaultSite, namespace: str, since: float, seconds: float = 20.0) -> float:
    """When the first document after this time that gives no user a feature was seen (monotonic seconds). Raises TimeoutError."""

    def seen() -> float:
        return next((at for at, document in _since(site, namespace, since) if max(shares(document).values()) <= 0), 0.0)

    return float(until(seen, seconds, f"the features of {namespace} off"))


def promised(site: FaultSite, namespace: str) -> float:
    """Seconds within which features are off: on a machine that has more to do, as long as a number of requests takes now."""
    begun, path = time.monotonic(), f"{ROLLOUTS.format(namespace)}/{NAME}"
    for _ in range(PROMISED_REQUESTS):
        site.lab.kube.get(path)
    return max(PROMISED_SECONDS, time.monotonic() - begun)


def on_again(site: FaultSite, namespace: str, since: float) -> list[Object]:
    """Documents after this time that give a feature to anybody."""
    return [document for _, document in _since(site, namespace, since) if max(shares(document).values()) > 0]


def _since(site: FaultSite, namespace: str, since: float) -> list[tuple[float, Object]]:
    return [(at, document) for at, document in list(site.watch.documents[namespace]) if at > since]
