"""What is judged in a `SessionRollout.spec`: criteria and guards (a metric against one bound), and gates (what must hold once)."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from session_rollout.api.base import Model, Name, rules
from session_rollout.api.cel import COMPARISON
from session_rollout.api.quantities import Bound, Duration


class ComparedTo(StrEnum):
    """What a value is held against when not against a fixed bound."""

    BASELINE = "Baseline"  # the metric before the phase's first publish
    CONTROL = "Control"  # the users who do not have the feature, at the same time


class Check(Model):
    """A metric held against one bound."""

    model_config = ConfigDict(json_schema_extra=rules(*COMPARISON))
    name: Annotated[Name, Field(description="What status and actions call it; unique in its list.")]
    metric: Annotated[Name, Field(description="Which of `metrics`.")]
    above: Annotated[Bound | None, Field(description='The value must be greater, such as "95%", "500ms", "10737418240".')] = (
        None
    )
    below: Annotated[Bound | None, Field(description='The value must be less, such as "0.1%", "500ms", "10737418240".')] = None
    compared_to: ComparedTo | None = None
    max_increase: Annotated[
        Bound | None, Field(description="Largest rise against `comparedTo` that passes: a share with %, else a difference.")
    ] = None
    max_decrease: Annotated[
        Bound | None, Field(description="Largest fall against `comparedTo` that passes: a share with %, else a difference.")
    ] = None
    min_increase: Annotated[
        Bound | None, Field(description="Smallest rise against `comparedTo` that passes: a share with %, else a difference.")
    ] = None


class OnBreach(StrEnum):
    """What a breached guard does."""

    ROLLBACK = "Rollback"
    PAUSE = "Pause"
    WARN = "Warn"


class Guard(Check):
    """A check that holds all the time, from the first phase to the end of the bake."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            *COMPARISON,
            (
                "!has(self.comparedTo) || self.comparedTo == 'Baseline'",
                "`comparedTo` of a guard must be `Baseline`: a guard is judged in every phase, also where no control is left",
            ),
        ),
    )
    for_: Annotated[Duration, Field(alias="for", description="How long a breach must last before it acts.")] = "0s"
    on_breach: OnBreach = OnBreach.ROLLBACK


class Approval(Model):
    """A person's yes, given with a SessionRolloutAction."""


class HttpCheck(Model):
    """A request to a Service of the rollout's own namespace; where that is reached is the admin's to say."""

    service: Annotated[Name, Field(description="A Service of the same namespace.")]
    port: Annotated[int, Field(description="Of the Service.", ge=1, le=65535, json_schema_extra={"format": "int32"})] = 80
    path: Annotated[
        str, Field(description="What is asked for, by GET.", pattern=r"^/[A-Za-z0-9._~/%?&=+-]{0,255}$", max_length=256)
    ] = "/"
    expect_status: Annotated[
        int, Field(description="The only answer that passes.", ge=100, le=599, json_schema_extra={"format": "int32"})
    ] = 200


class JobCheck(Model):
    """A Job made from a check profile of the operator's configuration: image, command and time-out are the admin's."""

    profile: Annotated[Name, Field(description="An entry of `checks` in the operator's configuration.")]


class Builtin(StrEnum):
    """Checks the operator knows by itself, from the checklists of deployments."""

    FLAG_STORE = "FlagStore"  # the flag document can be written and read back
    MIGRATIONS = "Migrations"  # none has failed, and what is pending can be read
    METRICS = "Metrics"  # every metric of the spec answers with a number
    ALERTS = "Alerts"  # the provider has loaded the alert rules that the configuration names
    ROLLBACK = "Rollback"  # what `rollback` asks for can be done
    HEALTH = "Health"  # the workload is available
    CAPACITY = "Capacity"  # the configuration's diagnostics of this topic are within their bounds
    CACHE = "Cache"


class Gate(Model):
    """Something that must hold once: a metric within a bound, an answer, a Job that succeeds, an approval, a built-in check."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "[has(self.metric), has(self.http), has(self.job), has(self.approval), has(self.builtin)]"
                ".filter(x, x).size() == 1",
                "must have exactly one of `metric`, `http`, `job`, `approval` and `builtin`",
            ),
            (
                "has(self.metric) == (has(self.above) != has(self.below)) && !(has(self.above) && has(self.below))",
                "a gate with `metric` must have exactly one of `above` and `below`, any other neither",
            ),
        ),
    )
    name: Annotated[Name, Field(description="What actions and status call it.")]
    metric: Annotated[Name | None, Field(description="Which of `metrics`; with `above` or `below`.")] = None
    above: Annotated[Bound | None, Field(description='The value must be greater, such as "95%", "500ms", "10737418240".')] = (
        None
    )
    below: Annotated[Bound | None, Field(description='The value must be less, such as "0.1%", "500ms", "10737418240".')] = None
    http: HttpCheck | None = None
    job: JobCheck | None = None
    approval: Approval | None = None
    builtin: Builtin | None = None
