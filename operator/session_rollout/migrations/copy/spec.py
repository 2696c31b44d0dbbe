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
    """A source row for which `when` is true cannot be copied; `reason` says why in the quarantine."""

    when: Expression
    reason: Annotated[str, Field(min_length=1, max_length=200)]


class Changed(Section):
    """Expressions for the time at which the application last wrote a row, on each side."""

    source: Expression
    target: Expression


class CopySpec(Section):
    """Rows of `source` become rows of `target` with the same key; expressions call them `s` and `t`."""

    source: Name
    target: Name
    key: Name
    where: Expression = "true"  # which source rows are copied
    columns: Annotated[dict[Name, Expression], Field(min_length=1)]  # target column: expression of `s`; compared
    stamps: dict[Name, Expression] = Field(default_factory=dict)  # the same, not compared
    ours: Expression  # whether a target row was copied, not created by the application
    touched: Expression = "false"  # whether the application has written a copied row since
    changed: Changed | None = None
    user: Name | None = None  # column with the owner of a row
    mark: dict[Name, Expression] = Field(default_factory=dict)  # source columns that are set when the copy is finished
    checks: tuple[Check, ...] = ()  # of the row alone
    lookups: tuple[Check, ...] = ()  # checks that read other tables

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
