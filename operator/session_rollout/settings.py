"""The operator's configuration: one YAML file, written by the cluster administrator.

A SessionRollout names its entries and never contains a URL, an image or a command.
"""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from session_rollout.api.parsing import sentence
from session_rollout.api.quantities import Bound, Duration
from session_rollout.errors import SpecError, Unavailable


class Section(BaseModel):
    """Base of the sections: camelCase in YAML; unknown keys are rejected."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="forbid")


class Dialect(StrEnum):
    """The query language of a metric provider."""

    PROMETHEUS = "Prometheus"
    METRICS_QL = "MetricsQL"
    THANOS = "Thanos"


class Provider(Section):
    """A Prometheus server, or any server with the Prometheus query API."""

    url: Annotated[
        str,
        Field(
            pattern=r"^https?://",
            description="Base URL without `/api/v1/query`, for example `http://prometheus.monitoring.svc:9090`. Redirects are not followed.",
        ),
    ]
    timeout: Annotated[
        Duration,
        Field(
            description="Time limit of a query, from the resolution of the host name to the last byte of the response. A slower response is treated as ProviderError. Defaults to `5s`."
        ),
    ] = "5s"
    dialect: Annotated[
        Dialect,
        Field(
            description="Query language of the server: `Prometheus` (default), `Thanos`, or `MetricsQL` for VictoriaMetrics."
            " With `Prometheus` and `Thanos`, a query with a definite syntax error stalls the rollout. Syntax that a newer server may"
            " know, such as an unknown function, is left to the server, which rejects it with ProviderError. With `MetricsQL`, every query is left to the"
            " server, the longest time in brackets such as `[5m]` counts as the range of a query that is not PromQL, one that cannot be read such as `[w]` stalls the rollout, and 30 seconds are added to each range, because"
            " VictoriaMetrics hides newer data by default."
        ),
    ] = Dialect.PROMETHEUS
    lookback_delta: Annotated[
        Duration,
        Field(
            description="Oldest sample that an instant selector such as `up` returns, which is `--query.lookback-delta` of the server. The warm-up after a publish waits for it. Defaults to `5m`."
        ),
    ] = "5m"
    scrape_interval: Annotated[
        Duration,
        Field(
            description="Longest interval in which the server scrapes the metrics of applications. The warm-up after a publish waits for it in addition to the range of a query. Defaults to `1m`."
        ),
    ] = "1m"
    rule_interval: Annotated[
        Duration,
        Field(
            description="Longest interval in which the server evaluates recording rules. The warm-up after a publish waits for it where a metric has a `window`. Defaults to `1m`."
        ),
    ] = "1m"
    bearer_token_file: Annotated[
        Path | None,
        Field(
            description="Path of a file with a bearer token. The operator reads it before each query, so the token can be rotated. If unset, no token is sent."
        ),
    ] = None
    ca_file: Annotated[
        Path | None,
        Field(
            description="Path of a PEM file with the certificate authorities to trust. If unset, the bundle of the image is used."
        ),
    ] = None
    max_response_bytes: Annotated[
        int,
        Field(
            ge=1024,
            le=64 * 2**20,
            description="Largest response that is read, in bytes. A larger response is treated as ProviderError. Defaults to 1048576 (1 MiB).",
        ),
    ] = 2**20


def credential(path: Path) -> str:
    """A secret in a file that the configuration names; read each time, because the file may be rotated.

    Raises Unavailable with the path and the reason.
    """
    try:
        return path.read_text().strip()
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Unavailable(f"{path} cannot be read: it is not text") from error


def own_image() -> str:
    """The image of this process, from the environment of its Pod; empty outside a Pod."""
    return os.environ.get("SESSION_ROLLOUT_IMAGE", "")


class Profile(Section):
    """Settings of migration Jobs: what a Pod template could set and a custom resource must not."""

    image: Annotated[
        str, Field(description="Image of the migration Jobs. If empty (default), the image of the operator is used.")
    ] = ""
    image_pull_policy: Annotated[
        str, Field(description="Image pull policy: `Always`, `IfNotPresent` (default) or `Never`.")
    ] = "IfNotPresent"
    service_account: Annotated[
        str,
        Field(
            description="ServiceAccount of the Pods in the namespace of the rollout. It supplies imagePullSecrets; its token is not mounted. Defaults to `default`."
        ),
    ] = "default"
    lock_timeout: Annotated[
        Duration, Field(description="Longest time that a statement of a migration waits for a lock. Defaults to `2s`.")
    ] = "2s"
    lock_deadline: Annotated[
        Duration, Field(description="Time for which a migration retries to get its locks before it fails. Defaults to `15m`.")
    ] = "15m"
    statement_timeout: Annotated[Duration, Field(description="Longest time that one statement runs. Defaults to `10m`.")] = (
        "10m"
    )
    retries: Annotated[
        int,
        Field(
            ge=0,
            le=100,
            description="Number of Pods that a Job may lose before its migration fails, from 0 to 100: the Job's `backoffLimit`. Defaults to 10.",
        ),
    ] = 10
    copy_duty_cycle: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="Share of the time in which a migration copies rows; with 1, it does not pause. Defaults to 0.25.",
        ),
    ] = 0.25
    pause_on_read_latency: Annotated[
        Duration, Field(description="Pause copying while reading a single row takes longer than this. Defaults to `100ms`.")
    ] = "100ms"
    pause_on_replica_lag: Annotated[
        Duration, Field(description="Pause copying while a replica is further behind than this. Defaults to `10s`.")
    ] = "10s"
    free_space_query: Annotated[
        str,
        Field(
            description="SQL that returns the free space of the database's disk in bytes, as one number. If empty (default), free space is not checked."
        ),
    ] = ""
    resources: dict[str, dict[str, str]] = Field(
        default_factory=lambda: {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        description="Resource requests and limits of the container. Defaults to requests of 100m CPU and 128Mi memory, and a limit of 256Mi memory.",
    )


class CheckProfile(Section):
    """A Job that checks something, such as smoke tests; a gate refers to it by its name."""

    image: Annotated[str, Field(description="Image of the check Job, such as `shop-tests:1.4`.")]
    command: Annotated[
        tuple[str, ...],
        Field(
            description="Command of the container, as a list such as `[npm, test]`. If empty (default), the entrypoint of the image is used."
        ),
    ] = ()
    args: Annotated[tuple[str, ...], Field(description="Arguments of the command, as a list. Empty by default.")] = ()
    image_pull_policy: Annotated[
        str, Field(description="Image pull policy: `Always`, `IfNotPresent` (default) or `Never`.")
    ] = "IfNotPresent"
    service_account: Annotated[
        str,
        Field(
            description="ServiceAccount of the Pod in the namespace of the rollout. It supplies imagePullSecrets; its token is not mounted. Defaults to `default`."
        ),
    ] = "default"
    timeout: Annotated[
        Duration, Field(description="Time limit of the Job. A check that takes longer fails. Defaults to `10m`.")
    ] = "10m"
    resources: dict[str, dict[str, str]] = Field(
        default_factory=lambda: {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        description="Resource requests and limits of the container. Defaults to requests of 100m CPU and 128Mi memory, and a limit of 512Mi memory.",
    )


class Diagnostic(Section):
    """A query of a diagnostics topic, its bound, and what to do when the value is outside the bound."""

    name: Annotated[str, Field(max_length=63, description="Name of the query in the result.")]
    query: Annotated[
        str, Field(min_length=1, max_length=2048, description="PromQL query that returns one number, such as `max(up)`.")
    ]
    provider: Annotated[str, Field(description="Name of the entry of `prometheus` that is queried. Defaults to `default`.")] = (
        "default"
    )
    window: Annotated[
        Duration | None,
        Field(
            description="Time that one sample of the series in the query covers, such as `5m` for a recording rule over `[5m]`. A gate that uses the topic waits for it after a publish, in addition to the ranges in the query."
        ),
    ] = None
    above: Annotated[
        Bound | None,
        Field(description="The value must be greater than this bound, for example `95%`. Mutually exclusive with `below`."),
    ] = None
    below: Annotated[
        Bound | None,
        Field(
            description="The value must be less than this bound, for example `1%` or `500ms`. Mutually exclusive with `above`."
        ),
    ] = None
    advice: Annotated[
        str,
        Field(
            max_length=200,
            description="Advice for on-call engineers when the value is outside the bound, such as a command to run.",
        ),
    ] = ""

    @model_validator(mode="after")
    def _at_most_one_bound(self) -> Self:
        if self.above is not None and self.below is not None:
            raise ValueError("must have at most one of `above` and `below`")
        return self


class Webhook(Section):
    """A receiver of JSON, signed if `secretFile` is set, as defined by the Standard Webhooks specification."""

    url: Annotated[
        str,
        Field(pattern=r"^https?://", description="URL that receives a POST for each notification. Redirects are not followed."),
    ]
    secret_file: Annotated[
        Path | None, Field(description="Path of a file with the signing key. If unset, requests are not signed.")
    ] = None


class Sink(Section):
    """A receiver of notifications: a webhook, or any service that Apprise supports (Slack, Teams, email, PagerDuty and others)."""

    webhook: Annotated[
        Webhook | None,
        Field(description="Sends JSON by POST, signed if `secretFile` is set. Mutually exclusive with `urlFile`."),
    ] = None
    url_file: Annotated[
        Path | None,
        Field(description="Path of a file with the Apprise URL, which contains a secret. Mutually exclusive with `webhook`."),
    ] = None
    timeout: Annotated[
        Duration, Field(description="Time limit of a delivery. One that takes longer is retried. Defaults to `10s`.")
    ] = "10s"

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.webhook is None) == (self.url_file is None):
            raise ValueError("must have exactly one of `webhook` and `urlFile`")
        return self


class Settings(Section):
    """The whole configuration file."""

    prometheus: dict[str, Provider] = Field(
        default_factory=dict, description="Prometheus servers by name; `spec.prometheus` of a rollout selects one."
    )
    profiles: dict[str, Profile] = Field(
        default_factory=dict,
        description="Profiles of migration Jobs by name; `spec.database.profile` of a rollout selects one.",
    )
    checks: dict[str, CheckProfile] = Field(
        default_factory=dict, description="Jobs of gates by name; `job.profile` of a gate selects one."
    )
    diagnostics: dict[str, tuple[Diagnostic, ...]] = Field(
        default_factory=dict, description="Queries by topic, for `kubectl sessionrollout diagnose TOPIC`."
    )
    alerts: Annotated[
        tuple[str, ...],
        Field(description="Names of alert rules that the built-in gate `Alerts` expects Prometheus to have loaded."),
    ] = ()
    sinks: dict[str, Sink] = Field(
        default_factory=dict, description="Receivers of notifications by name; `spec.notifications` of a rollout selects them."
    )
    run_as_user: Annotated[
        int | None,
        Field(
            ge=1,
            le=2**31 - 1,
            description="User ID of the Pods of Jobs. If null, the cluster assigns one, as OpenShift does. Defaults to 10001.",
        ),
    ] = 10001
    service_address: Annotated[
        str,
        Field(
            pattern=r"^\S+$",
            description="Host and port at which an HTTP check reaches a Service, with the placeholders {service}, {namespace} and {port}. Defaults to `{service}.{namespace}.svc:{port}`.",
        ),
    ] = "{service}.{namespace}.svc:{port}"
    namespaces: Annotated[
        tuple[str, ...],
        Field(description="Namespaces that the operator watches. If empty (default), it watches all namespaces."),
    ] = ()
    metric_workers: Annotated[
        int,
        Field(
            ge=1,
            le=64,
            description="Largest number of queries that run at the same time on each Prometheus server, from 1 to 64. One in four is kept for queries that were fast. Defaults to 8.",
        ),
    ] = 8


def load(path: Path) -> Settings:
    """Read the file. Raises SpecError with the field, what was found and what is allowed."""
    try:
        document: Any = yaml.safe_load(path.read_text()) or {}
        settings = Settings.model_validate(document)
    except (OSError, yaml.YAMLError) as error:
        raise SpecError(f"configuration {path}: {error}") from error
    except ValidationError as error:
        raise SpecError(f"configuration {path}: {sentence(error)}") from error
    for name, profile in settings.profiles.items():
        if not (profile.image or own_image()):
            message = f"profiles.{name}.image must be set, because the environment has no SESSION_ROLLOUT_IMAGE"
            raise SpecError(f"configuration {path}: {message}")
    profiles = {
        name: profile.model_copy(update={"image": profile.image or own_image()}) for name, profile in settings.profiles.items()
    }
    return settings.model_copy(update={"profiles": profiles})
