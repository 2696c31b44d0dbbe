"""What a status says of the flag document: its revision, the features that are off or retired, and who else writes it."""

from typing import Annotated

from pydantic import Field

from session_rollout.api.base import SET, Feature, Model, Name, Quote, Revision, Sha, Text
from session_rollout.api.status_records import Percentage, Time, Uid

DISABLED_LENGTH = 80  # features of the spec, and as many that are published and no longer in it
UNKNOWN_LENGTH = 40  # names of one action
FEATURES_LENGTH = 40  # of a spec
SETTLED_LENGTH = 16  # UIDs of emergencies that were lifted, and of rollbacks


class DisabledFeature(Model):
    """A feature that was turned off in an emergency."""

    feature: Annotated[Feature, Field(description="Name of the feature; it is off for every user, unless `pending`.")]
    pending: Annotated[
        bool,
        Field(
            description="Whether the flag document still gives the feature to users, for example because it cannot be written."
        ),
    ] = False
    reason: Annotated[Quote, Field(description="Reason given in the action.")]
    by: Annotated[Text, Field(description="Name of the action that turned it off.")]
    time: Annotated[Time, Field(description="Time when it was turned off.")]
    uid: Annotated[
        Uid | None, Field(description="UID of the action that turned it off, or a name for an edit of the document.")
    ] = None
    requested_time: Annotated[
        Time | None,
        Field(
            description="Creation time of the newest action that turns it off; for an edit of the document, the end of its second. An older"
            " `EmergencyEnable` action does not end the emergency."
        ),
    ] = None
    dependents: Annotated[
        tuple[Feature, ...],
        Field(
            description="Features that depended on it since it was turned off, and that no other entry has. They are off with it, even if the"
            " spec no longer says so.",
            max_length=DISABLED_LENGTH,
            json_schema_extra=SET,
        ),
    ] = ()


class UnknownFeature(Model):
    """A name in an `EmergencyDisable` action that is not a feature: nothing was turned off for it."""

    feature: Annotated[Feature, Field(description="Name that is neither a feature of the spec nor of the flag document.")]
    by: Annotated[Text, Field(description="Name of the action that contains it.")]
    time: Annotated[Time, Field(description="Time of the decision that looked for it.")]


class RetiredFeature(Model):
    """A feature that the plan no longer contains and that users keep."""

    feature: Annotated[Feature, Field(description="Name of the feature in the flag document.")]
    percent: Annotated[Percentage, Field(description="Percentage of users who have the feature.")]
    groups: Annotated[
        tuple[Name, ...],
        Field(description="Groups that have the feature whatever the percentage.", max_length=8, json_schema_extra=SET),
    ] = ()
    time: Annotated[Time, Field(description="Time when it was retired.")]
    phase: Annotated[
        Name | None,
        Field(description="Phase that published the feature. Its migrations are not undone while users keep the feature."),
    ] = None


class FlagDrift(Model):
    """The last edit of the flag document by somebody else."""

    time: Annotated[Time, Field(description="Time of the decision that corrected it.")]
    by: Annotated[Text, Field(description="Field manager that wrote the document; empty when it was deleted.")] = ""
    count: Annotated[int, Field(description="Number of edits, each within five minutes of the one before.", ge=1, le=3)] = 1


class FlagsRecord(Model):
    """State of the flag document and its ConfigMap."""

    config_map: Annotated[
        str | None, Field(description="Name of the ConfigMap; its key is `flags.flagd.json`.", max_length=63)
    ] = None
    sha256: Annotated[
        Sha | None, Field(description="SHA-256 of the document to publish; it is written before the document is published.")
    ] = None
    published_sha256: Annotated[Sha | None, Field(description="SHA-256 of the document that was read back last.")] = None
    published_time: Annotated[Time | None, Field(description="Time when the document was read back.")] = None
    given_sha256: Annotated[
        Sha | None, Field(description="SHA-256 of what the document that was read back last gives to users.")
    ] = None
    given_time: Annotated[
        Time | None,
        Field(
            description="Time since which the document has given this to users. Baselines are measured on data from after it."
            " Unset while nothing was ever given."
        ),
    ] = None
    revision: Annotated[Revision, Field(description="Revision of the document. It only increases.")] = 0
    disabled: Annotated[
        tuple[DisabledFeature, ...],
        Field(
            description="Features that are off because of an emergency.",
            max_length=DISABLED_LENGTH,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["feature"]},
        ),
    ] = ()
    unknown: Annotated[
        tuple[UnknownFeature, ...],
        Field(
            description="Names in an `EmergencyDisable` action that are not features. They are shown for an hour, or until an `EmergencyEnable`"
            " action.",
            max_length=UNKNOWN_LENGTH,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["feature"]},
        ),
    ] = ()
    retired: Annotated[
        tuple[RetiredFeature, ...],
        Field(
            description="Features with `retired: true`, with what users keep.",
            max_length=40,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["feature"]},
        ),
    ] = ()
    initially_off: Annotated[
        tuple[Feature, ...],
        Field(
            description="Features that no phase has published and that were `initial: Off`. A change of the spec to `On` gives them to nobody.",
            max_length=FEATURES_LENGTH,
            json_schema_extra=SET,
        ),
    ] = ()
    settled: Annotated[
        tuple[Uid, ...],
        Field(
            description="UIDs of the last emergencies that were lifted and of the last rollbacks. The operator never adopts"
            " them from the annotation of the document again.",
            max_length=SETTLED_LENGTH,
            json_schema_extra=SET,
        ),
    ] = ()
    holdback: Annotated[
        Percentage | None,
        Field(
            description="`spec.control.holdback` at the first publish, without `%`; `0` if nobody is held back. It is fixed until the rollout"
            " is promoted, or no user has a feature of it."
        ),
    ] = None
    released_time: Annotated[
        Time | None,
        Field(
            description="Time when the users who were held back were to get the features, after the bake. Unset before that, and after a"
            " rollback: they are held back again."
        ),
    ] = None
    drift: Annotated[
        FlagDrift | None, Field(description="The last edit of the document by somebody else, and how often it came back.")
    ] = None
    adoption_required: Annotated[
        bool,
        Field(
            description="Whether the document in the cluster gives something that this status does not know of. It is kept as it"
            " is until an `Adopt` or a `Reset` action."
        ),
    ] = False


def settled(flags: FlagsRecord, uids: tuple[str, ...]) -> FlagsRecord:
    """The record with these protections as lifted or carried out: none is adopted again."""
    fresh = tuple(uid for uid in uids if uid not in flags.settled)
    return flags.updated(settled=(*flags.settled, *fresh)[-SETTLED_LENGTH:])
