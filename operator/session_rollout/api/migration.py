"""The database part of `SessionRollout.spec`: the migrations, the database, and the Secret with its connection string."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from session_rollout.api.base import Model, Name, rules


class ConfigMapRef(Model):
    """A ConfigMap in the namespace of the rollout, with files such as `0001_x.up.sql` and `0001_x.down.sql`."""

    name: Annotated[Name, Field(description="Name of the ConfigMap in the namespace of the rollout.")]


class Change(StrEnum):
    """Effect of a migration on what the code paths of the application need. The bundle must comply with it."""

    EXPAND = "Expand"  # The migration only adds tables, columns and indexes.
    MIGRATE = "Migrate"  # The migration copies data into what was added.
    CONTRACT = "Contract"  # The migration removes what no code path of the application needs.


class Migration(Model):
    """A bundle that is applied once: SQL steps, or a copy of rows from one table to another."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.bundle) != has(self.configMapRef)", "must have exactly one of `bundle` and `configMapRef`"),
        ),
    )
    name: Annotated[
        Name,
        Field(
            description="Name of the migration in `phases[].migrations`, in actions and in status, such as `session-tables`."
        ),
    ]
    bundle: Annotated[
        str | None,
        Field(
            description="Path of a bundle in the image of the migration Jobs, such as `session-persistence/schema`."
            " Mutually exclusive with `configMapRef`.",
            pattern=r"^[a-z0-9-]{1,60}/[a-z0-9-]{1,60}$",
            max_length=121,
        ),
    ] = None
    config_map_ref: Annotated[
        ConfigMapRef | None,
        Field(
            description="A ConfigMap in the namespace of the rollout with the files of the bundle, such as `0001_x.up.sql`"
            " and `0001_x.down.sql`. Mutually exclusive with `bundle`."
        ),
    ] = None
    change: Annotated[
        Change,
        Field(
            description="Kind of change, which limits the SQL that is accepted. `Expand` (default) only adds; `Migrate` copies"
            " data into what was added; `Contract` may drop, rename and delete, and must run in `after` of a phase. That phase"
            " and all phases before it must end at `percent: 100`. It runs before the bake and before copies are finished, so use a"
            " rollout of its own for it."
        ),
    ] = Change.EXPAND
    backup: Annotated[
        bool,
        Field(
            description="Take a snapshot of the tables before the phase is published. Only for a bundle that copies rows."
            " Defaults to false."
        ),
    ] = False
    point_of_no_return: Annotated[
        int | None,
        Field(
            ge=1,
            le=9999,
            json_schema_extra={"format": "int32"},
            description="Number of the first SQL step that cannot be undone, such as 3 for `0003_x.up.sql`. The operator announces"
            " it before the migration starts. Once the migration has succeeded, none of its SQL steps can be undone, not even those"
            " before this number, and the operator rejects `MigrateDown`. If the migration failed after this SQL step was applied,"
            " undoing it fails and changes nothing. If unset, every SQL step can be undone.",
        ),
    ] = None


class SecretKeyRef(Model):
    """A key of a Secret in the namespace of the rollout. It is mounted into the Job; the operator never reads it."""

    name: Annotated[
        Name,
        Field(
            description="Name of the Secret. A policy of the chart rejects a rollout that refers to an existing Secret without the"
            " label `sessionrollout.dev/database: allowed`."
        ),
    ]
    key: Annotated[
        str,
        Field(
            description="Key in the Secret whose value is the connection string, such as `postgresql://user:password@host/name`."
            " Defaults to `url`.",
            pattern=r"^[-._a-zA-Z0-9]+$",
            max_length=253,
        ),
    ] = "url"


class Database(Model):
    """The database of the migrations, and the profile that their Jobs run with."""

    profile: Annotated[
        Name,
        Field(
            description="Name of an entry of `profiles` in the operator's configuration, which sets the image, the"
            " ServiceAccount and the timeouts of the Jobs. Defaults to `default`."
        ),
    ] = "default"
    secret_key_ref: Annotated[
        SecretKeyRef,
        Field(description="Secret and key with the connection string of the database role that runs the migrations."),
    ]
    data_secret_key_ref: Annotated[
        SecretKeyRef | None,
        Field(
            description="Secret and key with the connection string of another role that copies rows, if the role in"
            " `secretKeyRef` only defines tables. If unset, `secretKeyRef` is used for both."
        ),
    ] = None
