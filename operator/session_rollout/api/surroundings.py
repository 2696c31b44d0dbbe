"""What a status says of the surroundings of a rollout: the clocks, and the workload of the application."""

from typing import Annotated

from pydantic import Field

from session_rollout.api.base import Model, Revision, Sentence, Text
from session_rollout.api.status_records import Time


class ClockRecord(Model):
    """The last change of a clock that the operator noticed. Times in the status are unaffected: they follow elapsed time."""

    time: Annotated[Time, Field(description="Time when the operator noticed it, by the clock that it uses.")]
    milliseconds: Annotated[
        int,
        Field(
            ge=-(2**53),
            le=2**53,
            json_schema_extra={"format": "int64"},
            description="By how many milliseconds the clock was set forward; negative if it was set back.",
        ),
    ]
    source: Annotated[Text, Field(description="Clock that was set: `api-server`, or `operator` for that of its node.")]


class WorkloadRecord(Model):
    """Changes of the operator to the Deployment. The intent is written first, the result afterwards."""

    undo_requested_time: Annotated[
        Time | None, Field(description="Time when the operator decided to undo the last revision.")
    ] = None
    undo_from: Annotated[Revision | None, Field(description="Revision of the Deployment that is undone.")] = None
    undo_to: Annotated[
        Revision | None, Field(description="Revision that the Deployment returns to. Unset when there is no previous one.")
    ] = None
    undone_time: Annotated[Time | None, Field(description="Time when the rollback of the Deployment was complete.")] = None
    restart_requested_time: Annotated[Time | None, Field(description="Time when a restart was requested.")] = None
    restarted_time: Annotated[Time | None, Field(description="Time when the restart began.")] = None
    message: Annotated[Sentence, Field(description="Result of the undo or the restart.")] = ""
