"""`copy.yaml`: which rows are copied where, as SQL expressions. It is trusted, like an SQL step."""

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from session_rollout.api.base import sha256_of
from session_rollout.api.migration_enums import FailureReason
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

    when: Annotated[
        Expression,
        Field(
            description="SQL condition on the source row `s`. Rows for which it is true go into quarantine. Example: `s.user_id IS NULL`."
        ),
    ]
    reason: Annotated[
        str,
        Field(
            min_length=1, max_length=200, description="Reason that the quarantine shows for such a row, such as `has no user`."
        ),
    ]


class Lookup(Check):
    """A reason why a source row cannot be copied, which depends on rows of other tables."""

    when: Annotated[
        Expression,
        Field(
            description="SQL condition on the source row `s`, which may contain subqueries. Rows for which it is true go into"
            " quarantine. Example: `NOT EXISTS (SELECT FROM users u WHERE u.id = s.user_id)`."
        ),
    ]
    reason: Annotated[
        str,
        Field(
            min_length=1,
            max_length=200,
            description="Reason that the quarantine shows for such a row, such as `its user does not exist`.",
        ),
    ]


class Changed(Section):
    """Time of the last write of the application, for each side."""

    source: Annotated[
        Expression,
        Field(description="SQL expression for the time of the last write of the source row `s`. Example: `s.updated_at`."),
    ]
    target: Annotated[
        Expression,
        Field(description="SQL expression for the time of the last write of the target row `t`. Example: `t.updated_at`."),
    ]


class CopySpec(Section):
    """Rows of `source` become rows of `target` with the same key; SQL expressions call these rows `s` and `t`."""

    source: Annotated[
        Name, Field(description="Table whose rows are copied. The name may contain a schema, such as `app.orders`.")
    ]
    target: Annotated[Name, Field(description="Table that the rows are copied to. It must exist.")]
    key: Annotated[Name, Field(description="Column that is the key in both tables. It must be unique in the target.")]
    where: Annotated[
        Expression,
        Field(
            description="SQL condition on the source rows to copy. Defaults to `true`, which is all rows. Example: `s.migrated IS NULL`."
        ),
    ] = "true"
    columns: Annotated[
        dict[Name, Expression],
        Field(
            min_length=1,
            description="Target columns and the SQL expressions for their values. Source and target are compared by these. Example: `user_id: s.user_id`.",
        ),
    ]
    stamps: Annotated[
        dict[Name, Expression],
        Field(
            description="Target columns that are written with every copied row and never compared. Empty by default. Example: `moved_at: now()`."
        ),
    ] = Field(default_factory=dict)
    ours: Annotated[
        Expression,
        Field(
            description="SQL condition on the target rows that this copy has created. Other rows belong to the application and are never changed. Example: `t.origin = 'legacy'`."
        ),
    ]
    touched: Annotated[
        Expression,
        Field(
            description="SQL condition on copied rows that the application has changed since they were copied. `down` keeps these. Compare times with `>=`, because `now()` is constant in a transaction that writes both tables. Example: `t.updated_at >= t.moved_at`. Defaults to `false`, which is none."
        ),
    ] = "false"
    changed: Annotated[
        Changed | None,
        Field(
            description="Time of the last write of the application, for each side. A restore keeps rows that are newer than the snapshot. If unset, all rows are restored."
        ),
    ] = None
    user: Annotated[
        Name | None,
        Field(
            description="Column with the ID of the user of a row, which lets an action restore the rows of one user. If unset, an action can restore only the rows of all users."
        ),
    ] = None
    mark: Annotated[
        dict[Name, Expression],
        Field(
            description='Source columns that are written when the copy is finished, and the SQL expressions for their values. Empty by default. Example: `migrated: "true"`.'
        ),
    ] = Field(default_factory=dict)
    checks: Annotated[
        tuple[Check, ...], Field(description="Checks of every source row, which read only the row itself. Empty by default.")
    ] = ()
    lookups: Annotated[
        tuple[Lookup, ...],
        Field(
            description="Checks that read other tables. They are evaluated only for rows that are copied by key: changed rows, and the rows of the batch in which the target rejected a row and of the batches after it. To exclude a row from every copy, use `checks` or `where`. Empty by default."
        ),
    ] = ()

    @property
    def checksum(self) -> str:
        """sha256 of the content."""
        return sha256_of(self.model_dump_json())


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
