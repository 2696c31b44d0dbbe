"""What protects users and is written before any status: an annotation of the flag document, as a list of `Protection`.

An emergency or a rollback changes the document first. If the process ends before the status is written, or the API server
refuses that write, the annotation says what was done and why, and the next decision adopts it.
"""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, TypeAdapter

from session_rollout.api import GROUP
from session_rollout.api.base import SET, Feature, Generation, Model, Name, Revision, Sentence, Sentences, Text
from session_rollout.api.enums import Outcome
from session_rollout.api.status_records import Plan, Time, Uid

ANNOTATION: Final = f"{GROUP}/protections"
PROTECTIONS_LENGTH: Final = 100
FEATURES_LENGTH: Final = 400


class ProtectionKind(StrEnum):
    """What took features away from users."""

    EMERGENCY = "Emergency"
    ROLLBACK = "Rollback"


class Protection(Model):
    """One emergency or rollback that the document contains, until the status contains it too."""

    kind: ProtectionKind
    uid: Annotated[Uid, Field(description="UID of the action; for a breach or a deadline, a name of its own.")]
    time: Time
    requested_time: Time | None = None  # of the action
    revision: Annotated[Revision, Field(description="Revision of the document that contains it first.")] = 0
    generation: Annotated[Generation, Field(description="Generation of the spec that a rollback is about.")] = 0
    plan: Annotated[Plan | None, Field(description="Fingerprint of the plan that was rolled back.")] = None
    by: Annotated[Text, Field(description="Name of the action or of the guard.")] = ""
    reason: Sentence = ""
    features: Annotated[tuple[Feature, ...], Field(max_length=FEATURES_LENGTH, json_schema_extra=SET)] = ()
    phases: Annotated[tuple[Name, ...], Field(max_length=40, json_schema_extra=SET)] = ()  # that a rollback turned off
    outcome: Outcome | None = None
    guard: Name | None = None
    causes: Sentences = ()


PROTECTIONS: Final = TypeAdapter(tuple[Protection, ...])
