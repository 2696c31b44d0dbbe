"""What a migration Job reports: each line of its log and its termination message are one `Progress`, as JSON.

Written by `migrations`, read by `adapters.jobs`; what people see of it is in `status.migrations`. Programs read the fields,
never the message.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from session_rollout.api.base import Model, Rows, Sentence
from session_rollout.api.quantities import format_duration

MESSAGE_LENGTH = 512


class FailureReason(StrEnum):
    """Reason of a failed migration; `status.migrations[].reason`."""

    INVALID_ARGUMENTS = "InvalidArguments"  # Options of the command contradict each other or the bundle.
    INVALID_BUNDLE = "InvalidBundle"  # SQL files are missing, misnamed or combined in a way that cannot run.
    INVALID_COPY_SPEC = "InvalidCopySpec"  # `copy.yaml` has an invalid field.
    INVALID_CONNECTION_STRING = "InvalidConnectionString"  # The connection string cannot be parsed.
    CONNECTION_REJECTED = "ConnectionRejected"  # The password, the role, the database or `pg_hba.conf` is wrong.
    DATABASE_ERROR = "DatabaseError"  # The database returned an error that another attempt cannot change.
    LINT_FAILED = "LintFailed"  # The SQL breaks a rule of `lint`.
    BUNDLE_CHANGED = "BundleChanged"  # A step or `copy.yaml` was edited after it was applied.
    BUNDLE_OUTDATED = "BundleOutdated"  # The ledger has steps that this bundle does not have.
    STEP_FAILED = "StepFailed"  # The database rejected the SQL of a step.
    STEP_INCOMPLETE = "StepIncomplete"  # An index build was interrupted; `up` completes it.
    UNSUPPORTED_STATEMENT = "UnsupportedStatement"  # CONCURRENTLY is used with anything but an index.
    LOCK_TIMEOUT = "LockTimeout"  # A table lock was not granted within `lockDeadline`.
    CONCURRENT_MIGRATION = "ConcurrentMigration"  # Another runner holds the advisory lock, or has taken over the copy.
    DATA_LOSS = "DataLoss"  # The operation would destroy data, and data loss is not allowed.
    POINT_OF_NO_RETURN = "PointOfNoReturn"  # The migration has passed its point of no return.
    PREFLIGHT_FAILED = "PreflightFailed"  # Rights or disk space are missing, or a transaction pooler is used.
    MISSING_TABLE = "MissingTable"  # The source or the target of a copy does not exist.
    INVALID_KEY = "InvalidKey"  # The key of a copy is not a unique column.
    COPY_NOT_STARTED = "CopyNotStarted"  # The copy has not started.
    COPY_INCOMPLETE = "CopyIncomplete"  # Rows are still to be copied.
    COPY_FINISHED = "CopyFinished"  # The target has become the source of truth.
    ROWS_DIFFER = "RowsDiffer"  # Source and target are not equal.
    NO_SNAPSHOT = "NoSnapshot"  # No complete snapshot matches.
    TERMINATED = "Terminated"  # The Pod was terminated.
    DEADLINE_EXCEEDED = "DeadlineExceeded"  # The database did not recover within the deadline.


class Progress(Model):
    """The state of a migration. Unknown fields come from a newer image and are ignored."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")

    reason: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Z][A-Za-z]*$",
            max_length=63,
            description="Why it failed: a `FailureReason`, or one of a newer image. None while it runs and when it succeeded.",
        ),
    ] = None
    message: Annotated[Sentence, Field(description="What happens now, or the result, in one sentence for people.")] = ""
    checksum: Annotated[str | None, Field(max_length=71, description="sha256 of the bundle.")] = None
    done: Annotated[Rows | None, Field(description="Rows that are copied.")] = None
    total: Annotated[Rows | None, Field(description="Rows of the source; an estimate for tables above 20 million rows.")] = None
    rate: Annotated[Rows | None, Field(description="Rows per second, averaged over the last 10 seconds.")] = None
    remaining_seconds: Annotated[Rows | None, Field(description="Seconds until all rows are copied, at this rate.")] = None
    quarantined: Annotated[Rows, Field(description="Rows that could not be copied.")] = 0
    following: Annotated[bool, Field(description="Whether changes of the source are applied to the target.")] = False
    waiting: Annotated[
        str,
        Field(
            max_length=256, description="What the migration waits for: a lock, a throttle, the database. Empty while it works."
        ),
    ] = ""


def clipped(message: str) -> str:
    """The message within its bound of 512 characters."""
    return message if len(message) <= MESSAGE_LENGTH else message[: MESSAGE_LENGTH - 1] + "…"


def progress_text(
    done: int | None,
    total: int,
    *,
    rate: int | None = None,
    remaining: timedelta | None = None,
    quarantined: int = 0,
    following: bool = False,
) -> str:
    """How far a copy is: `42% (420,000 of 1,000,000 rows), 31,000 rows/s, 19s left, 12 quarantined, following changes`.

    `done`, `total` and `quarantined` count rows, `rate` is rows per second. Parts that are None, 0 or False are omitted; a
    remaining time below one second is shown as one second.
    """
    copied = done or 0
    parts = [f"{100 * copied // total if total else 100}% ({copied:,} of {total:,} rows)"]
    parts += [f"{rate:,} rows/s"] if rate else []
    parts += (
        [f"{format_duration(timedelta(seconds=max(round(remaining.total_seconds()), 1)))} left"]
        if remaining is not None
        else []
    )
    parts += [f"{quarantined:,} quarantined"] if quarantined else []
    parts += ["following changes"] if following else []
    return ", ".join(parts)
