"""`copy.yaml`: which rows are copied where, as SQL expressions. It is trusted as the SQL of a step is."""

import hashlib
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from session_rollout.api.progress import FailureReason
from session_rollout.errors import BundleError
from session_rollout.migrations.schema.bundle import COPY_FILE

VALUE_LENGTH = 80
Name = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,40}(\.[a-z_][a-z0-9_]{0,40})?$")]
Expression = Annotated[str, Field(min_length=1, max_length=2000)]


class Section(BaseModel):
    """Base of all parts: unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Check(Section):
    """A reason why a source row cannot be copied."""

    when: Annotated[Expression, Field(description="Condition on the source row `s`; rows for which it is true are not copied.")]
    reason: Annotated[str, Field(min_length=1, max_length=200, description="Reason that the quarantine shows for such a row.")]


class Changed(Section):
    """When the application last wrote a row, on each side."""

    source: Annotated[Expression, Field(description="Time of the last write of the source row `s`.")]
    target: Annotated[Expression, Field(description="Time of the last write of the target row `t`.")]


class CopySpec(Section):
    """Rows of `source` become rows of `target` with the same key; SQL expressions call these rows `s` and `t`."""

    source: Annotated[Name, Field(description="Table whose rows are copied.")]
    target: Annotated[Name, Field(description="Table that gets the rows.")]
    key: Annotated[Name, Field(description="Unique column that both tables have.")]
    where: Annotated[Expression, Field(description="Which source rows are copied.")] = "true"
    columns: Annotated[
        dict[Name, Expression],
        Field(min_length=1, description="By target column: its value. Both sides are compared by these."),
    ]
    stamps: Annotated[
        dict[Name, Expression], Field(description="More target columns, written with every copied row but never compared.")
    ] = Field(default_factory=dict)
    ours: Annotated[Expression, Field(description="Which target rows were copied; the application created the others.")]
    touched: Annotated[
        Expression, Field(description="Which copied rows the application has written since; `down` keeps these.")
    ] = "false"
    changed: Annotated[
        Changed | None, Field(description="When the application last wrote a row; a restore keeps rows that are newer.")
    ] = None
    user: Annotated[Name | None, Field(description="Column that names the user of a row, for restores of one user.")] = None
    mark: Annotated[dict[Name, Expression], Field(description="Source columns that are set when the copy is finished.")] = (
        Field(default_factory=dict)
    )
    checks: Annotated[tuple[Check, ...], Field(description="Checks of every source row; they read only the row itself.")] = ()
    lookups: Annotated[
        tuple[Check, ...],
        Field(
            description="Checks that read other tables; only for rows that are copied by key: changes, and after row errors."
        ),
    ] = ()

    @property
    def checksum(self) -> str:
        """sha256 of the content."""
        return "sha256:" + hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def load(directory: Path) -> CopySpec:
    """The copy.yaml of a bundle. Raises BundleError with the field, its value and what is allowed."""
    try:
        document: Any = yaml.safe_load((directory / COPY_FILE).read_text())
        return CopySpec.model_validate(document)
    except (OSError, yaml.YAMLError) as error:
        raise BundleError(f"{COPY_FILE} cannot be read: {error}", FailureReason.INVALID_COPY_SPEC) from error
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field, value = ".".join(str(part) for part in problem["loc"]), str(problem["input"])[:VALUE_LENGTH]
        message = f"{COPY_FILE}: `{field}` is {value!r}: {problem['msg']}"
        raise BundleError(message, FailureReason.INVALID_COPY_SPEC) from error
