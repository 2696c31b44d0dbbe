"""The evidence of a comparison in `status.evidence`: sums and logarithms, from which later decisions continue."""

from typing import Annotated

from pydantic import Field

from session_rollout.api.base import Model, Name, Revision
from session_rollout.api.enums import CheckKind
from session_rollout.api.status_records import Number, Time

Logs = Annotated[str, Field(max_length=120, pattern=r"^[-0-9. ]*$")]


class EvidenceRecord(Model):
    """The evidence of a check that compares users with a feature and users without it, since the phase of the feature began."""

    phase: Annotated[Name, Field(description="Name of the phase that publishes the feature.")]
    kind: Annotated[CheckKind, Field(description="Kind of the check: `Criterion` or `Guard`.")]
    name: Annotated[Name, Field(description="Name of the criterion or guard.")]
    source: Annotated[
        str,
        Field(
            description="Fingerprint of the counters and of `tolerate`. When it changes, the evidence starts again.",
            max_length=16,
        ),
    ]
    alpha: Annotated[
        Number, Field(description="Probability with which the check may show harm by chance, fixed when the phase began.")
    ]
    until: Annotated[Time, Field(description="End of the last block that was read.")]
    blocks: Annotated[Revision, Field(description="Number of blocks that counted.")] = 0
    passed: Annotated[
        bool | None,
        Field(description="Whether the check passed while there were users without the feature, and has not failed since."),
    ] = None
    events: Annotated[
        str,
        Field(
            description="Bad and all events of users with the feature, bad and all events of users without it, and how many bad events"
            " the users with the feature would have had without it.",
            max_length=80,
            pattern=r"^[-0-9. ]*$",
        ),
    ] = ""
    exposed: Annotated[
        str,
        Field(
            description="Events of users with the feature, and of users without it, since the audience was published, and that time in"
            " Unix seconds.",
            max_length=60,
            pattern=r"^[-0-9. ]*$",
        ),
    ] = ""
    harm: Annotated[
        Logs, Field(description="Logarithms of the evidence of harm since the start, for each rate that is bet on.")
    ] = ""
    recent: Annotated[Logs, Field(description="The same for harm that began at some block; `-` for none.")] = ""
    safe: Annotated[Logs, Field(description="Logarithms of the evidence of harmlessness.")] = ""
    cells: Annotated[
        str | None,
        Field(
            description="Sums of each cell of users, by which clustering is measured: its name, bad and all events with the feature,"
            " and without it, in hundredths to the base 36.",
            max_length=8192,
        ),
    ] = None
    inflation: Annotated[
        Number | None,
        Field(description="Largest clustering that was measured between cells so far, by which later evidence is divided."),
    ] = None
    information: Annotated[
        str | None,
        Field(description="Clustering over time, where the metric has no cells.", max_length=80, pattern=r"^[-0-9. ]*$"),
    ] = None

    @property
    def key(self) -> tuple[str, CheckKind, str]:
        """What it is known by: phase, kind and name."""
        return self.phase, self.kind, self.name
