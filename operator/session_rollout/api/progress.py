"""What a migration Job reports: each line of its log and its termination message are one `Progress`, as JSON.

Written by `migrations`, read by `adapters.jobs`; `status.migrations` shows it to users. Programs read the fields,
never the message.
"""

from datetime import timedelta
from typing import Annotated, Final

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from session_rollout.api.base import Model, Rows, Sentence
from session_rollout.api.quantities import format_duration

LONGEST_COPY: Final = 100 * 365 * 86_400  # seconds; much more after now is later than any date
Seconds = Annotated[Rows, BeforeValidator(lambda value: min(value, LONGEST_COPY) if type(value) is int else value)]


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
    message: Annotated[Sentence, Field(description="What happens now, or the result, in one sentence.")] = ""
    checksum: Annotated[str | None, Field(max_length=71, description="sha256 of the bundle.")] = None
    done: Annotated[Rows | None, Field(description="Rows that are copied.")] = None
    total: Annotated[Rows | None, Field(description="Rows of the source; an estimate for tables above 20 million rows.")] = None
    rate: Annotated[Rows | None, Field(description="Rows per second, averaged over the last 10 seconds.")] = None
    remaining_seconds: Annotated[Seconds | None, Field(description="Seconds until all rows are copied, at this rate.")] = None
    quarantined: Annotated[Rows, Field(description="Rows that could not be copied.")] = 0
    following: Annotated[bool, Field(description="Whether changes in the source are applied to the target.")] = False
    waiting: Annotated[
        str,
        Field(
            max_length=256, description="What the migration waits for: a lock, a throttle, the database. Empty while it works."
        ),
    ] = ""


def progress_text(
    done: int | None,
    total: int,
    *,
    rate: int | None = None,
    remaining: timedelta | None = None,
    quarantined: int = 0,
    following: bool = False,
) -> str:
    """How far a copy is: `42% (420,000 of 1,000,000 rows), 31,000 rows/s, 19 s left, 12 quarantined, following changes`.

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
