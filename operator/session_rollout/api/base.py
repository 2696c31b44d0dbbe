"""What all models share: frozen, camelCase in JSON, no unknown fields; the string types; the list markers of schemas.

There are two families of strings. Those of a spec (`Name`, `Text`) are rejected when they are too long. Those that the
operator writes itself (`Sentence`, `Summary`, `Note`) shorten themselves: a status is never rejected because of the length of a message.
"""

import hashlib
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic.alias_generators import to_camel

NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
FEATURE_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9_.-]{0,43}$"

MAP_BY_NAME: Final = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
SET: Final = {"x-kubernetes-list-type": "set"}
ATOMIC: Final = {"x-kubernetes-list-type": "atomic"}

SENTENCE_LENGTH: Final = 512
NOTE_LENGTH: Final = 240
SUMMARY_LENGTH: Final = 120
SENTENCES: Final = 8

Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=63)]
Feature = Annotated[str, Field(pattern=FEATURE_PATTERN, max_length=44)]
TEXT_LENGTH: Final = 256
Text = Annotated[str, Field(max_length=TEXT_LENGTH)]
Sha = Annotated[str, Field(max_length=71)]
Index = Annotated[int, Field(ge=0, le=1000, json_schema_extra={"format": "int32"})]
Revision = Annotated[int, Field(ge=0, le=2**53, json_schema_extra={"format": "int64"})]
Generation = Annotated[int, Field(ge=0, le=2**53, json_schema_extra={"format": "int64"})]
Rows = Annotated[int, Field(ge=0, le=2**53, json_schema_extra={"format": "int64"})]


def sha256_of(text: str) -> str:
    """Fingerprint of a text, as status, records and the ledger contain it: `sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def shortened(text: str, length: int) -> str:
    """The text within `length` characters; an ellipsis shows that something is missing."""
    return text if len(text) <= length else text[: length - 1] + "…"


def message_of(text: str, _: ValidationInfo) -> str:
    """What is kept of a message, given the fields before it. Tests replace this to prove that nothing depends on prose."""
    return text


def encodable(text: str) -> str:
    """The text without halves of surrogate pairs, which a provider's JSON may contain and no JSON of ours can."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _shortens(length: int) -> BeforeValidator:
    def shorten(value: Any, info: ValidationInfo) -> Any:
        return encodable(shortened(message_of(value, info), length)) if isinstance(value, str) else value

    return BeforeValidator(shorten)


def _clips(length: int) -> BeforeValidator:
    return BeforeValidator(lambda value: shortened(value, length) if isinstance(value, str) else value)


def _keeps_first(count: int) -> BeforeValidator:
    return BeforeValidator(lambda value: tuple(value)[:count] if isinstance(value, list | tuple) else value)


Sentence = Annotated[str, Field(max_length=SENTENCE_LENGTH), _shortens(SENTENCE_LENGTH)]
Note = Annotated[str, Field(max_length=NOTE_LENGTH), _shortens(NOTE_LENGTH)]
Summary = Annotated[str, Field(max_length=SUMMARY_LENGTH), _shortens(SUMMARY_LENGTH)]
# The bound comes before the function, or pydantic writes `maxLength` instead of `maxItems` into the schema.
Sentences = Annotated[tuple[Sentence, ...], Field(max_length=SENTENCES, json_schema_extra=ATOMIC), _keeps_first(SENTENCES)]
Quote = Annotated[str, Field(max_length=TEXT_LENGTH), _clips(TEXT_LENGTH)]  # what somebody else wrote, wherever it was found
Figure = Annotated[str, Field(max_length=40), _clips(40)]
Limit = Annotated[str, Field(max_length=80), _clips(80)]


class Model(BaseModel):
    """Base of every model of the API."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="forbid")

    def to_wire(self) -> dict[str, Any]:
        """The object as JSON-ready data, as it goes to the API server: camelCase, nothing that is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def updated(self, **fields: Any) -> Self:
        """A copy with these fields changed, validated: `model_copy` would accept a misspelled field and a value out of bounds.

        Raises pydantic.ValidationError.
        """
        return type(self).model_validate({**self.__dict__, **fields})


def rules(*checks: tuple[str, str] | tuple[str, str, str]) -> dict[str, Any]:
    """`x-kubernetes-validations` from CEL rules, each with a message that says what is allowed.

    The optional third text is CEL for what was found; the API server adds its value to the message.
    """
    validations = []
    for rule, message, *values in checks:
        validation = {"rule": rule, "message": message}
        if values:
            validation["messageExpression"] = f"'{message}; found ' + {values[0]}"
        validations.append(validation)
    return {"x-kubernetes-validations": validations}
