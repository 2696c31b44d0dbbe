"""Closed sets that appear in the API: verdicts, stages, outcomes, condition types and reasons. They are API: never renamed."""

from enum import StrEnum


class Verdict(StrEnum):
    """Result of evaluating a criterion, a guard or a gate."""

    PASS = "Pass"  # noqa: S105 - a verdict, not a password
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"
    NO_DATA = "NoData"
    PROVIDER_ERROR = "ProviderError"
    NOT_EVALUATED = "NotEvaluated"

    @property
    def is_evidence(self) -> bool:
        """Only these two say something about the users; the hold clock counts no other time."""
        return self in {Verdict.PASS, Verdict.FAIL}


class Stage(StrEnum):
    """Where in a phase the rollout is; `status.current.stage`."""

    PREFLIGHT = "Preflight"
    BASELINE = "Baseline"
    BEFORE = "MigrationsBefore"
    STEP = "Step"
    VERIFICATION = "Verification"
    AFTER = "MigrationsAfter"
    BAKE = "Bake"
    ROLLING_BACK = "RollingBack"
    ENDED = "Ended"


class Outcome(StrEnum):
    """How a generation ended."""

    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"
    SUPERSEDED = "Superseded"


class PhaseState(StrEnum):
    """State of one phase in `status.phases`."""

    PENDING = "Pending"
    RUNNING = "Running"
    COMPLETED = "Completed"
    ROLLED_BACK = "RolledBack"


class MigrationState(StrEnum):
    """State of one migration in `status.migrations`."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    REVERTING = "Reverting"
    REVERTED = "Reverted"


class Operation(StrEnum):
    """What a migration's Job does; the second part of its name."""

    UP = "up"
    DOWN = "down"
    BACKUP = "backup"  # a snapshot of its tables
    FINISH = "finish"  # what was moved becomes the truth
    RESTORE = "restore"  # rows come back from the snapshot
    RETRY = "retry"  # rows in quarantine are tried again
    PRUNE = "prune"  # snapshots whose time is over go
    REPAIR = "repair"  # damaged rows are replaced from their source or a snapshot
    PLAN = "plan"  # what up would do and lock; changes nothing
    STATUS = "status"  # what the ledger says; changes nothing
    VERIFY = "verify"  # both sides of a copy are compared; changes nothing


class NoReturn(StrEnum):
    """Where a migration stands to its point of no return."""

    AHEAD = "Ahead"
    PASSED = "Passed"


class ActionType(StrEnum):
    """What a person may ask for with a SessionRolloutAction."""

    APPROVE = "Approve"
    PROMOTE = "Promote"
    PAUSE = "Pause"
    RESUME = "Resume"
    ABORT = "Abort"
    RETRY = "Retry"
    EMERGENCY_DISABLE = "EmergencyDisable"
    RESTORE = "Restore"
    RESTORE_SESSIONS = "RestoreSessions"
    RETRY_MIGRATION = "RetryMigration"
    BACKUP_SESSIONS = "BackupSessions"
    RECOVER_SESSIONS = "RecoverSessions"
    MIGRATE_DOWN = "MigrateDown"
    RESTART_WORKLOAD = "RestartWorkload"
    UNDO_WORKLOAD = "UndoWorkload"
    VERIFY = "Verify"  # these three only look; their answer is in the action's status
    DIAGNOSE = "Diagnose"
    INSPECT_MIGRATION = "InspectMigration"

    @property
    def only_looks(self) -> bool:
        """Whether the rollout stays as it is: such an action is answered by an examination, not by a decision."""
        return self in {ActionType.VERIFY, ActionType.DIAGNOSE, ActionType.INSPECT_MIGRATION}


class Condition(StrEnum):
    """Types in `status.conditions`; the first three follow kstatus."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    SPEC_VALID = "SpecValid"
    MIGRATIONS_APPLIED = "MigrationsApplied"
    EVIDENCE_AVAILABLE = "EvidenceAvailable"
    PAUSED = "Paused"
    ROLLED_BACK = "RolledBack"
    NOTIFIED = "Notified"


class DecisionAction(StrEnum):
    """What the operator does now; `status.decision.action`. Each is also the reason of the Ready condition."""

    HOLD = "Hold"  # the step is kept until its hold is over
    WAIT = "Wait"  # something outside is awaited: a Job, an approval, evidence, a window
    PUBLISH = "Publish"  # the flag document goes out, or is being read back
    MIGRATE = "Migrate"  # a migration Job runs
    PROMOTE = "Promote"  # on to the next step, phase or the end
    PAUSE = "Pause"  # a person, `suspend`, or a guard with onBreach Pause keeps it
    STALL = "Stall"  # cannot go on without a person
    ROLL_BACK = "RollBack"  # flags go off, then the slower parts
    NONE = "None"  # ended


class EventReason(StrEnum):
    """Reasons of the Kubernetes Events and of `status.history`."""

    STARTED = "Started"
    PHASE_STARTED = "PhaseStarted"
    STEP_PUBLISHED = "StepPublished"
    STEP_PASSED = "StepPassed"
    PHASE_COMPLETED = "PhaseCompleted"
    BAKE_STARTED = "BakeStarted"
    EVIDENCE_LOST = "EvidenceLost"
    EVIDENCE_BACK = "EvidenceBack"
    GUARD_BREACHED = "GuardBreached"
    MIGRATION_STARTED = "MigrationStarted"
    MIGRATION_SUCCEEDED = "MigrationSucceeded"
    MIGRATION_FAILED = "MigrationFailed"
    MIGRATION_KEPT = "MigrationKept"
    POINT_OF_NO_RETURN = "PointOfNoReturnAhead"
    APPROVAL_NEEDED = "ApprovalNeeded"
    ACTION_ACCEPTED = "ActionAccepted"
    ACTION_REFUSED = "ActionRefused"
    PAUSED = "Paused"
    RESUMED = "Resumed"
    STALLED = "Stalled"
    ROLLBACK_STARTED = "RollbackStarted"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"
    SUPERSEDED = "Superseded"
    FLAGS_DISABLED = "FlagsDisabled"
    FLAGS_RESTORED = "FlagsRestored"
    FLAG_DRIFT = "FlagDriftCorrected"
    CHECK_FAILED = "CheckFailed"
    ROLLBACK_VERIFIED = "RollbackVerified"
    WORKLOAD_UNDONE = "WorkloadUndone"
    WORKLOAD_KEPT = "WorkloadKept"
    WORKLOAD_RESTARTED = "WorkloadRestarted"

    @property
    def is_warning(self) -> bool:
        """Whether the Event has type Warning."""
        return self in _WARNINGS


_WARNINGS = frozenset(
    {
        EventReason.EVIDENCE_LOST,
        EventReason.GUARD_BREACHED,
        EventReason.MIGRATION_FAILED,
        EventReason.MIGRATION_KEPT,
        EventReason.POINT_OF_NO_RETURN,
        EventReason.ACTION_REFUSED,
        EventReason.STALLED,
        EventReason.ROLLBACK_STARTED,
        EventReason.ROLLED_BACK,
        EventReason.ABORTED,
        EventReason.FLAGS_DISABLED,
        EventReason.FLAG_DRIFT,
        EventReason.CHECK_FAILED,
        EventReason.WORKLOAD_UNDONE,
        EventReason.WORKLOAD_KEPT,
    }
)
