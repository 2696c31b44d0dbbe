"""What a migration Job says of itself: each line of its log and its termination message are one of these, as JSON.

Written by `migrations`, read by `adapters.jobs`; what people see of it is in `status.migrations`.
"""

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from session_rollout.api.base import Model, Rows, Sentence

MESSAGE_LENGTH = 512


class Progress(Model):
    """Where a migration is. Unknown fields are those of a newer image and are passed over."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")

    reason: Annotated[
        str | None, Field(description="Machine-readable reason of a failure or a wait in CamelCase.", max_length=63)
    ] = None
    message: Sentence = ""
    checksum: Annotated[str | None, Field(max_length=71)] = None
    done: Annotated[Rows | None, Field(description="Rows that are where they should be.")] = None
    total: Annotated[Rows | None, Field(description="Rows of the source; an estimate for very large tables.")] = None
    rate: Annotated[Rows | None, Field(description="Rows a second, over the last seconds.")] = None
    remaining_seconds: Annotated[Rows | None, Field(description="Until done, at this rate.")] = None
    quarantined: Rows = 0
    following: Annotated[bool, Field(description="Changes of the source go on being applied to the target.")] = False
    waiting: Annotated[
        str, Field(max_length=256, description="What holds it up: a lock, a brake; empty when nothing does.")
    ] = ""


def clipped(message: str) -> str:
    """A message within its bound."""
    return message if len(message) <= MESSAGE_LENGTH else message[: MESSAGE_LENGTH - 1] + "…"
