"""Invalid steps of phases, in the form of `api.invalid`; and valid ones."""

from typing import Any

from api.corpus import Mistake, both, drop, put

PHASE = "spec.phases[1]"
FIRST = f"{PHASE}.steps[0]"
REAL = {"percent": 10, "groups": ["staff"], "hold": "1d"}
WHOLE = {"percent": 100, "groups": ["staff", "friends"], "hold": "1d"}
OF_A_PLACEBO = (FIRST, "`placebo: true` requires `percent` above 0 and below 100")
IN_FRONT = (PHASE, "steps with `placebo: true` must come first")


def placebo(**fields: Any) -> dict[str, Any]:
    """A placebo step with these fields; None removes one."""
    wanted = {"percent": 10, "hold": "1d", "placebo": True, **fields}
    return {key: value for key, value in wanted.items() if value is not None}


def steps(*wanted: dict[str, Any]) -> Mistake:
    """Those of the second phase."""
    return put("phases.1.steps", list(wanted))


BAD_PLACEBOS: list[tuple[str, Mistake, tuple[str, ...]]] = [
    ("placebo of nobody", steps(placebo(percent=0), WHOLE), OF_A_PLACEBO),
    ("placebo of nobody in text", steps(placebo(percent="0.0"), WHOLE), OF_A_PLACEBO),
    ("placebo of everybody", steps(placebo(percent=100), WHOLE), OF_A_PLACEBO),
    ("placebo of a group", steps(placebo(groups=["staff"]), WHOLE), OF_A_PLACEBO),
    ("placebo of a group alone", steps(placebo(groups=["staff"], percent=None), WHOLE), OF_A_PLACEBO),
    (
        "placebo that rises",
        steps(placebo(percent=None, hold=None, ramp={"to": 50, "over": "7d", "increments": 4}), WHOLE),
        OF_A_PLACEBO,
    ),
    ("placebo after the feature", steps(REAL, placebo(), WHOLE), IN_FRONT),
    ("placebo at the end", steps(REAL, WHOLE, placebo()), IN_FRONT),
    ("placebo alone", steps(placebo()), IN_FRONT),
    ("placebo as text", steps(placebo(placebo="yes"), WHOLE), (f"{FIRST}.placebo", "boolean")),
    ("placebo of a feature that is on", put("phases.0.steps", [placebo(), WHOLE]), ("initial: On", "percent: 100")),
]
OF_A_HOLDBACK = ("spec", "`control.holdback` must be `0%`", "found 2%")
BAD_HOLDBACKS: list[tuple[str, Mistake, tuple[str, ...]]] = [
    *(
        (f"holdback of {text}", put("control", {"holdback": text}), ("spec.control.holdback", "should match"))
        for text in ("2", "20.1%", "21%", "100%", "0.05%", "-1%", "02%", ".5%", " 2%")
    ),
    ("holdback as a number", put("control", {"holdback": 2}), ("spec.control.holdback", "string")),
    ("holdback of users who have the feature", put("control", {"holdback": "2%"}), (*OF_A_HOLDBACK, "`initial: On`")),
    (
        "holdback of users who need what is removed",
        both(
            drop("features.0.initial"),
            put("control", {"holdback": "2%"}),
            lambda s: s["migrations"][1].update(change="Contract"),
        ),
        (*OF_A_HOLDBACK, "`change: Contract`"),
    ),
]
BAD_STEPS: list[tuple[str, Mistake, tuple[str, ...]]] = [
    *BAD_PLACEBOS,
    *BAD_HOLDBACKS,
    ("percent above 100", put("phases.1.steps.0.percent", 101), ("spec.phases[1].steps[0].percent", "100")),
    ("percent negative", put("phases.1.steps.0.percent", -1), ("spec.phases[1].steps[0].percent", "0")),
    ("percent float", put("phases.1.steps.0.percent", 0.5), ("spec.phases[1].steps[0].percent", "integer,string")),
    ("percent text", put("phases.1.steps.0.percent", "ten"), ("spec.phases[1].steps[0].percent", "[0-9]")),
    ("percent with sign", put("phases.1.steps.0.percent", "10%"), ("spec.phases[1].steps[0].percent", "[0-9]")),
    ("percent with two decimals", put("phases.1.steps.0.percent", "0.25"), ("spec.phases[1].steps[0].percent", "[0-9]")),
    ("percent text above 100", put("phases.1.steps.0.percent", "150"), ("spec.phases[1].steps[0].percent", "100")),
    (
        "percentages fall",
        put("phases.1.steps.2.percent", 40),
        ("spec.phases[1]", "must not be less than in the preceding step"),
    ),
    ("ramp falls", put("phases.1.steps.1.ramp.to", 5), ("spec.phases[1]", "must not be less than in the preceding step")),
    (
        "groups disappear",
        put("phases.1.steps.2.groups", ["friends"]),
        ("spec.phases[1]", "contain all groups of the preceding step"),
    ),
    ("groups gone", drop("phases.1.steps.2.groups"), ("spec.phases[1]", "contain all groups of the preceding step")),
    ("group twice", put("phases.1.steps.0.groups", ["staff", "staff"]), ("steps[0].groups", "Duplicate")),
    ("group upper case", put("phases.1.steps.0.groups", ["Staff"]), ("steps[0].groups[0]", "a-z0-9")),
    ("step with nothing", put("phases.0.steps.0", {"hold": "1d"}), ("spec.phases[0].steps[0]", "`percent`", "`groups`")),
    ("step without hold", drop("phases.0.steps.0.hold"), ("spec.phases[0].steps[0]", "`hold`")),
    ("ramp with hold", put("phases.1.steps.1.hold", "1d"), ("spec.phases[1].steps[1]", "`ramp`", "`percent`", "`hold`")),
    (
        "ramp with percent",
        put("phases.1.steps.1.percent", 20),
        ("spec.phases[1].steps[1]", "`ramp`", "`percent`", "`hold`"),
    ),
    ("ramp of no increments", put("phases.1.steps.1.ramp.increments", 0), ("ramp.increments", "greater than or equal to 1")),
    ("ramp of many increments", put("phases.1.steps.1.ramp.increments", 101), ("ramp.increments", "less than or equal to 100")),
    ("ramp without increments", drop("phases.1.steps.1.ramp.increments"), ("ramp.increments", "Required")),
    ("ramp without time", drop("phases.1.steps.1.ramp.over"), ("ramp.over", "Required")),
    (
        "ramp faster than checks",
        put("phases.1.steps.1.ramp.over", "1m"),
        ("ramp.over", "at least `increments` times `checkInterval`"),
    ),
    (
        "compound ramp faster than checks",
        put("phases.1.steps.1.ramp.over", "1m59s999ms"),
        ("ramp.over", "at least `increments` times `checkInterval`"),
    ),
    ("hold below interval", put("phases.0.steps.0.hold", "10s"), ("hold", "at least `checkInterval`")),
    ("hold without unit", put("phases.0.steps.0.hold", "7"), ("steps[0].hold", "at least 2 chars")),
    ("hold zero", put("phases.0.steps.0.hold", "0s"), ("steps[0].hold", "from 1ms to 365d")),
    ("hold of two years", put("phases.0.steps.0.hold", "104w"), ("steps[0].hold", "from 1ms to 365d")),
    ("compound hold below interval", put("phases.0.steps.0.hold", "29s999ms"), ("hold", "at least `checkInterval`")),
    (
        "hold below a compound interval",
        both(put("checkInterval", "1d12h"), put("bake", "0s")),
        ("hold", "at least `checkInterval`"),
    ),
    ("approval boolean", put("phases.1.steps.2.approval", value=True), ("steps[2].approval", "string")),
    ("approval unknown", put("phases.1.steps.2.approval", "Yes"), ("steps[2].approval", '"Required", "NotRequired"')),
]
FINE_STEPS: list[tuple[str, Mistake]] = [
    ("placebo", steps(placebo(), REAL, WHOLE)),
    ("larger placebo", steps(placebo(percent="99.9", approval="Required"), placebo(percent="0.1"), REAL, WHOLE)),
    ("placebo before a ramp", steps(placebo(groups=[]), {"ramp": {"to": 100, "over": "7d", "increments": 4}})),
    *(
        (f"holdback of {text}", both(drop("features.0.initial"), put("control", {"holdback": text})))
        for text in ("2%", "0.1%", "9.9%", "19.9%", "20%", "20.0%")
    ),
    *(
        (
            f"nobody held back, {text}",
            both(put("control", {"holdback": text}), lambda s: s["migrations"][1].update(change="Contract")),
        )
        for text in ("0%", "0.0%")
    ),
    ("no placebo", steps({**REAL, "placebo": False}, WHOLE)),
]
