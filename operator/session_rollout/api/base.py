"""What all models share: frozen, camelCase on the wire, nothing unknown; and the list markers of structural schemas."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
FEATURE_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9_.-]{0,43}$"

MAP_BY_NAME: Final = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
SET: Final = {"x-kubernetes-list-type": "set"}
ATOMIC: Final = {"x-kubernetes-list-type": "atomic"}

Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=63)]
Feature = Annotated[str, Field(pattern=FEATURE_PATTERN, max_length=44)]
Text = Annotated[str, Field(max_length=256)]
Message = Annotated[str, Field(max_length=512)]
Index = Annotated[int, Field(ge=0, le=1000, json_schema_extra={"format": "int32"})]
Generation = Annotated[int, Field(ge=0, le=2**53, json_schema_extra={"format": "int64"})]
Rows = Annotated[int, Field(ge=0, le=2**53, json_schema_extra={"format": "int64"})]


class Model(BaseModel):
    """Base of every model of the API."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="forbid")

    def to_wire(self) -> dict[str, Any]:
        """The object as JSON-ready data, as it goes to the API server: camelCase, nothing that is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """`x-kubernetes-validations` from (CEL rule, message) pairs; the message says what is allowed."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}
