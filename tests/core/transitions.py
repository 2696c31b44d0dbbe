"""The table of transitions between stages, written by hand from what each stage is for."""

from typing import Final

from session_rollout.api.enums import Stage

TRANSITIONS: Final[dict[Stage, set[Stage]]] = {
    # The first decision enters Preflight from itself; so does an edit that arrives there. Without a pending phase the bake
    # follows: a phase was added and, while it waited, removed again.
    # `Adopt` of a document that was rolled back ends there.
    Stage.PREFLIGHT: {Stage.PREFLIGHT, Stage.BEFORE, Stage.BAKE, Stage.ROLLING_BACK, Stage.ENDED},
    # An edit asks everything again that comes before the first publish; while users have a part of the phase, only its migrations.
    Stage.BEFORE: {Stage.PREFLIGHT, Stage.BEFORE, Stage.BASELINE, Stage.ROLLING_BACK},
    Stage.BASELINE: {Stage.PREFLIGHT, Stage.BEFORE, Stage.STEP, Stage.ROLLING_BACK},
    # Every audience of a phase, and every increment of a ramp, is a stage of its own. An edit that gives more users the feature
    # than the published audience waits for guards, as the first audience does. An edit before the first audience could be
    # published is one before the first publish.
    Stage.STEP: {Stage.STEP, Stage.PREFLIGHT, Stage.BASELINE, Stage.VERIFICATION, Stage.ROLLING_BACK},
    Stage.VERIFICATION: {Stage.VERIFICATION, Stage.AFTER, Stage.ROLLING_BACK},
    # The next phase, or the bake after the last. An edit has the phase verified again.
    Stage.AFTER: {Stage.VERIFICATION, Stage.BEFORE, Stage.BAKE, Stage.ROLLING_BACK},
    # Guards act until the end of the bake; an edit may add a phase, which begins with the preflight.
    Stage.BAKE: {Stage.BAKE, Stage.PREFLIGHT, Stage.ENDED, Stage.ROLLING_BACK},
    # The breach lasts while a part of the rollback is awaited: the next older phase follows.
    Stage.ROLLING_BACK: {Stage.ROLLING_BACK, Stage.ENDED},
    # A Retry after a rollback, or an edit that adds a phase or follows a rollback; a breach while an older phase is published.
    Stage.ENDED: {Stage.PREFLIGHT, Stage.ROLLING_BACK},
}
