"""The operator's configuration: one YAML file that only admins write. A SessionRollout names its entries and never brings a URL."""

import os
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from session_rollout.api.parsing import sentence
from session_rollout.api.quantities import Bound, Duration
from session_rollout.errors import SpecError, Unavailable


class Section(BaseModel):
    """Base of the parts: camelCase in YAML, nothing unknown."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="forbid")


class Provider(Section):
    """One Prometheus, or anything that answers its query API."""

    url: Annotated[str, Field(pattern=r"^https?://", description="Without `/api/v1/query`; redirects are not followed.")]
    timeout: Annotated[Duration, Field(description="An answer that takes longer is no evidence.")] = "5s"
    bearer_token_file: Annotated[Path | None, Field(description="File with a token, read for each query.")] = None
    ca_file: Annotated[Path | None, Field(description="File with the authorities to trust; none: the image's.")] = None
    max_answer_bytes: Annotated[int, Field(ge=1024, le=64 * 2**20, description="A larger answer is no evidence.")] = 2**20


def credential(path: Path) -> str:
    """A secret in a file that the configuration names, read each time, for it is rotated.

    Raises Unavailable with the path and the reason.
    """
    try:
        return path.read_text().strip()
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Unavailable(f"{path} cannot be read: it is not text") from error


def own_image() -> str:
    """The image this process runs from, where its Pod says so."""
    return os.environ.get("SESSION_ROLLOUT_IMAGE", "")


class Profile(Section):
    """How migration Jobs run: everything a pod template could say that a custom resource must not."""

    image: Annotated[str, Field(description="Empty: the operator's own.")] = ""
    image_pull_policy: Annotated[str, Field(description="Of the image.")] = "IfNotPresent"
    service_account: Annotated[
        str, Field(description="Of the Pods, in the rollout's namespace; imagePullSecrets come from it, no token is mounted.")
    ] = "default"
    lock_timeout: Annotated[Duration, Field(description="Longest wait of one statement for a lock.")] = "2s"
    lock_deadline: Annotated[Duration, Field(description="How long locks are tried before the migration fails.")] = "15m"
    statement_timeout: Annotated[Duration, Field(description="Longest run of one statement.")] = "10m"
    retries: Annotated[int, Field(ge=0, le=100, description="Pods of a Job that may be lost before a person must look.")] = 10
    duty: Annotated[float, Field(gt=0, le=1, description="Share of the time in which rows are moved.")] = 0.25
    brake_latency: Annotated[Duration, Field(description="Rows rest while reading one takes longer.")] = "100ms"
    brake_lag: Annotated[Duration, Field(description="Rows rest while a replica is further behind.")] = "10s"
    free_space_query: Annotated[str, Field(description="SQL that returns the free bytes of the database's disk.")] = ""
    resources: dict[str, dict[str, str]] = Field(
        default_factory=lambda: {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        description="Of the container; at first, 100 mCPU and 128 MiB asked for, and at most 256 MiB.",
    )


class CheckProfile(Section):
    """A Job that checks something, such as smoke tests: a gate names it and says nothing else."""

    image: Annotated[str, Field(description="What the Job runs.")]
    command: Annotated[tuple[str, ...], Field(description="Empty: what the image starts.")] = ()
    args: Annotated[tuple[str, ...], Field(description="Arguments of the command.")] = ()
    image_pull_policy: Annotated[str, Field(description="Of the image.")] = "IfNotPresent"
    service_account: Annotated[
        str, Field(description="Of the Pod, in the rollout's namespace; imagePullSecrets come from it, no token is mounted.")
    ] = "default"
    timeout: Annotated[Duration, Field(description="After this the check has failed.")] = "10m"
    resources: dict[str, dict[str, str]] = Field(
        default_factory=lambda: {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        description="Of the container; at first, 100 mCPU and 128 MiB asked for, and at most 512 MiB.",
    )


class Diagnostic(Section):
    """One question of a topic that people on call ask about, and what to do when its answer is out of bounds."""

    name: Annotated[str, Field(max_length=63, description="What it is called in the answer.")]
    query: Annotated[str, Field(min_length=1, max_length=2048, description="PromQL with one number as its answer.")]
    provider: Annotated[str, Field(description="The entry of `prometheus` that is asked.")] = "default"
    above: Annotated[Bound | None, Field(description="Worth attention unless the answer is above.")] = None
    below: Annotated[Bound | None, Field(description="Worth attention unless the answer is below.")] = None
    advice: Annotated[str, Field(max_length=200, description="What to do then.")] = ""

    @model_validator(mode="after")
    def _at_most_one_bound(self) -> Self:
        if self.above is not None and self.below is not None:
            raise ValueError("must have at most one of `above` and `below`")
        return self


class Webhook(Section):
    """A receiver of signed JSON, as the Standard Webhooks specification has it."""

    url: Annotated[str, Field(pattern=r"^https?://", description="Redirects are not followed.")]
    secret_file: Annotated[Path | None, Field(description="File with the key that signs; none: unsigned.")] = None


class Sink(Section):
    """Where notices go: one webhook, or anything that Apprise knows by a URL (Slack, Teams, e-mail, PagerDuty ...)."""

    webhook: Annotated[Webhook | None, Field(description="Signed JSON by POST; either this or `urlFile`.")] = None
    url_file: Annotated[Path | None, Field(description="File with the Apprise URL, for it holds a secret.")] = None
    timeout: Annotated[Duration, Field(description="A delivery that takes longer is tried again.")] = "10s"

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.webhook is None) == (self.url_file is None):
            raise ValueError("must have exactly one of `webhook` and `urlFile`")
        return self


class Settings(Section):
    """The whole file."""

    prometheus: dict[str, Provider] = Field(default_factory=dict, description="By the name that `spec.prometheus` says.")
    profiles: dict[str, Profile] = Field(default_factory=dict, description="By the name that `spec.database.profile` says.")
    checks: dict[str, CheckProfile] = Field(default_factory=dict, description="By the name that a gate's `job.profile` says.")
    diagnostics: dict[str, tuple[Diagnostic, ...]] = Field(default_factory=dict, description="By topic.")
    alerts: Annotated[tuple[str, ...], Field(description="Alert rules that the built-in check `Alerts` looks for.")] = ()
    sinks: dict[str, Sink] = Field(default_factory=dict, description="By the name that `spec.notifications` says.")
    run_as_user: Annotated[
        int | None,
        Field(ge=1, le=2**31 - 1, description="Uid of every Job's Pod; null: the cluster gives one, as OpenShift does."),
    ] = 10001
    service_address: Annotated[
        str,
        Field(pattern=r"^\S+$", description="Where a Service is reached: host and port, with {service}, {namespace}, {port}."),
    ] = "{service}.{namespace}.svc:{port}"
    namespaces: Annotated[tuple[str, ...], Field(description="Empty: all namespaces.")] = ()
    metric_workers: Annotated[int, Field(ge=1, le=64, description="Queries asked at the same time.")] = 8


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
