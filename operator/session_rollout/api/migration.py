"""The database half of `SessionRollout.spec`: which bundles take effect, where, and with whose credentials."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from session_rollout.api.base import Model, Name, rules


class ConfigMapRef(Model):
    """A ConfigMap of the same namespace with files `0001_x.up.sql` and `0001_x.down.sql`."""

    name: Annotated[Name, Field(description="Of the ConfigMap.")]


class Change(StrEnum):
    """What a migration does to what the running version needs; its bundle is held to that."""

    EXPAND = "Expand"  # adds beside what is there
    MIGRATE = "Migrate"  # moves data into what was added
    CONTRACT = "Contract"  # takes away what nobody needs any more


class Migration(Model):
    """A bundle that takes effect once: steps of SQL, or rows that are moved."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.bundle) != has(self.configMapRef)", "must have exactly one of `bundle` and `configMapRef`"),
        ),
    )
    name: Annotated[Name, Field(description="What `phases[].migrations` calls it.")]
    bundle: Annotated[
        str | None,
        Field(
            description="One that the operator's image brings, such as `session-persistence/schema`.",
            pattern=r"^[a-z0-9-]{1,60}/[a-z0-9-]{1,60}$",
            max_length=121,
        ),
    ] = None
    config_map_ref: ConfigMapRef | None = None
    change: Annotated[Change, Field(description="Only a Contract migration may drop, rename or delete.")] = Change.EXPAND
    backup: Annotated[
        bool, Field(description="Take a snapshot of its tables before its phase is published; of a bundle that moves rows.")
    ] = False
    point_of_no_return: Annotated[
        int | None,
        Field(
            ge=1,
            le=9999,
            json_schema_extra={"format": "int32"},
            description="Number of the first step that cannot be undone; announced in status before it is passed.",
        ),
    ] = None


class SecretKeyRef(Model):
    """A key of a Secret of the same namespace; it is mounted into the Job, the operator never reads it."""

    name: Annotated[
        Name,
        Field(description="Of the Secret; the chart's policy asks for the label `sessionrollout.dev/database: allowed` on it."),
    ]
    key: Annotated[
        str, Field(description="Which of its values is the connection string.", pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)
    ] = "url"


class Database(Model):
    """Where migrations run, and under which profile of the operator's configuration."""

    profile: Annotated[
        Name, Field(description="An entry of `profiles` in the operator's configuration: image, ServiceAccount, time-outs.")
    ] = "default"
    secret_key_ref: SecretKeyRef
    data_secret_key_ref: Annotated[
        SecretKeyRef | None,
        Field(description="Connection string of the role that moves rows, where another one defines tables."),
    ] = None
