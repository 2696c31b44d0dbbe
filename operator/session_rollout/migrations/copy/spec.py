"""`copy.yaml`: which rows go where, as SQL expressions. Trusted as a step's SQL is: shipped with the image, or a team's own."""

import hashlib
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from session_rollout.migrations.bundle import COPY, BundleError

Name = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,40}(\.[a-z_][a-z0-9_]{0,40})?$")]
Expression = Annotated[str, Field(min_length=1, max_length=2000)]


class Section(BaseModel):
    """Base of the parts."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Check(Section):
    """What is wrong with a source row when `when` is true."""

    when: Expression
    reason: Annotated[str, Field(min_length=1, max_length=200)]


class Changed(Section):
    """When the application last wrote a row, on either side."""

    source: Expression
    target: Expression


class Copy(Section):
    """Rows of `source` become rows of `target` with the same key; `s` and `t` are their aliases in every expression."""

    source: Name
    target: Name
    key: Name
    where: Expression = "true"
    columns: Annotated[dict[Name, Expression], Field(min_length=1)]
    stamps: dict[Name, Expression] = Field(default_factory=dict)
    ours: Expression
    touched: Expression = "false"
    changed: Changed | None = None
    user: Name | None = None
    mark: dict[Name, Expression] = Field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    lookups: tuple[Check, ...] = ()

    @property
    def checksum(self) -> str:
        """sha256 of what it says."""
        return "sha256:" + hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def load(directory: Path) -> Copy:
    """The copy of a bundle. Raises BundleError with the field, what was found and what is allowed."""
    try:
        document: Any = yaml.safe_load((directory / COPY).read_text())
        return Copy.model_validate(document)
    except (OSError, yaml.YAMLError) as error:
        raise BundleError(f"{COPY} cannot be read: {error}") from error
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise BundleError(f"{COPY}: `{field}` is {str(problem['input'])[:80]!r}: {problem['msg']}") from error
