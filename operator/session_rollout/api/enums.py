"""The closed sets of the API: verdicts, stages, outcomes, condition types and reasons. A value is never renamed.

Every message has one of these reasons beside it: programs read the reason, people read the message.
The generated reference pages list them with the comments below.
"""

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
        """Whether the verdict says something about users. The hold timer counts only such time."""
        return self in {Verdict.PASS, Verdict.FAIL}


class CheckKind(StrEnum):
    """Which list of the spec a check comes from."""

    CRITERION = "Criterion"
    GUARD = "Guard"
    PREFLIGHT = "Preflight"
    VERIFICATION = "Verification"
    AFTER_ROLLBACK = "AfterRollback"


class CheckReason(StrEnum):
    """Why a check has its verdict; `status.checks[].reason`."""

    # The measurement was compared.
    WITHIN_BOUND = "WithinBound"
    OUT_OF_BOUND = "OutOfBound"
    WITHIN_TOLERANCE = "WithinTolerance"
    OUT_OF_TOLERANCE = "OutOfTolerance"
    TOLERANCE_UNCLEAR = "ToleranceUnclear"
    # There is nothing to compare yet.
    WARMING_UP = "WarmingUp"
    AWAITING_RESULT = "AwaitingResult"
    BASELINE_MISSING = "BaselineMissing"
    BASELINE_MEASURED = "BaselineMeasured"
    # The metric did not answer with one usable number.
    STALE_RESULT = "StaleResult"
    EMPTY_RESULT = "EmptyResult"
    NOT_A_NUMBER = "NotANumber"
    INFINITE_VALUE = "InfiniteValue"
    MULTIPLE_SERIES = "MultipleSeries"
    NOT_A_SAMPLE = "NotASample"
    PARTIAL_RESULT = "PartialResult"
    NO_COHORTS = "NoCohorts"
    NO_EVENTS = "NoEvents"
    TOO_FEW_EVENTS = "TooFewEvents"
    # The provider failed.
    UNKNOWN_PROVIDER = "UnknownProvider"
    CONNECTION_FAILED = "ConnectionFailed"
    TIMED_OUT = "TimedOut"
    QUERY_REJECTED = "QueryRejected"
    RESPONSE_TOO_LARGE = "ResponseTooLarge"
    INVALID_RESPONSE = "InvalidResponse"
    CREDENTIALS_UNREADABLE = "CredentialsUnreadable"
    INTERNAL_ERROR = "InternalError"
    # Gates that are not metrics.
    AWAITING_APPROVAL = "AwaitingApproval"
    APPROVED = "Approved"
    JOB_STARTED = "JobStarted"
    JOB_RUNNING = "JobRunning"
    JOB_SUCCEEDED = "JobSucceeded"
    JOB_FAILED = "JobFailed"
    CHECK_SUCCEEDED = "CheckSucceeded"
    CHECK_FAILED = "CheckFailed"
    NOT_CONFIGURED = "NotConfigured"


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


class State(StrEnum):
    """The rollout in one word; `status.state` and the column STATUS."""

    PROGRESSING = "Progressing"
    PAUSED = "Paused"
    STALLED = "Stalled"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"


class Outcome(StrEnum):
    """How a generation ended."""

    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"


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
    BACKUP = "backup"  # take a snapshot of its tables
    FINISH = "finish"  # make the copied rows the source of truth
    RESTORE = "restore"  # bring rows back from the snapshot
    RETRY = "retry"  # try the rows in quarantine again
    PRUNE = "prune"  # delete snapshots that have expired
    REPAIR = "repair"  # copy damaged rows from their source again
    PLAN = "plan"  # show what `up` would do and lock; changes nothing
    STATUS = "status"  # show what the ledger says; changes nothing
    VERIFY = "verify"  # compare both sides of a copy; changes nothing


class NoReturn(StrEnum):
    """Where a migration stands relative to its point of no return."""

    AHEAD = "Ahead"
    PASSED = "Passed"


class ActionType(StrEnum):
    """What a SessionRolloutAction requests."""

    APPROVE = "Approve"
    PROMOTE = "Promote"
    PAUSE = "Pause"
    RESUME = "Resume"
    ABORT = "Abort"
    RETRY = "Retry"
    EMERGENCY_DISABLE = "EmergencyDisable"
    EMERGENCY_ENABLE = "EmergencyEnable"
    RESTORE_DATA = "RestoreData"
    RETRY_MIGRATION = "RetryMigration"
    BACKUP_DATA = "BackupData"
    REPAIR_DATA = "RepairData"
    MIGRATE_DOWN = "MigrateDown"
    RESTART_WORKLOAD = "RestartWorkload"
    UNDO_WORKLOAD = "UndoWorkload"
    VERIFY = "Verify"
    DIAGNOSE = "Diagnose"
    INSPECT_MIGRATION = "InspectMigration"

    @property
    def is_read_only(self) -> bool:
        """Whether the rollout stays as it is. Such an action runs beside the decisions."""
        return self in {ActionType.VERIFY, ActionType.DIAGNOSE, ActionType.INSPECT_MIGRATION}

    @property
    def protects_users(self) -> bool:
        """Whether the action takes something from users or stops progress. It is accepted whatever else is full or failing."""
        return self in {ActionType.EMERGENCY_DISABLE, ActionType.PAUSE, ActionType.ABORT}


class ActionReason(StrEnum):
    """Why an action was accepted or refused; the reason of its `Accepted` condition."""

    ACCEPTED = "Accepted"
    SUSPENDED = "Suspended"
    UNKNOWN_FEATURE = "UnknownFeature"
    UNKNOWN_MIGRATION = "UnknownMigration"
    UNKNOWN_CHECK = "UnknownCheck"
    UNKNOWN_TOPIC = "UnknownTopic"
    UNKNOWN_ROLLOUT = "UnknownRollout"
    NOTHING_DISABLED = "NothingDisabled"
    ALREADY_PAUSED = "AlreadyPaused"
    NOT_PAUSED = "NotPaused"
    NOT_RUNNING = "NotRunning"
    ALREADY_ROLLING_BACK = "AlreadyRollingBack"
    NOTHING_TO_RETRY = "NothingToRetry"
    NO_SNAPSHOT = "NoSnapshot"
    MIGRATION_RUNNING = "MigrationRunning"
    MIGRATION_NOT_APPLIED = "MigrationNotApplied"
    MOVES_NO_ROWS = "MovesNoRows"
    PHASE_NOT_ROLLED_BACK = "PhaseNotRolledBack"
    POINT_OF_NO_RETURN_PASSED = "PointOfNoReturnPassed"
    NO_WORKLOAD = "NoWorkload"
    OTHER_GENERATION = "OtherGeneration"
    OTHER_STEP = "OtherStep"
    NO_APPROVAL_NEEDED = "NoApprovalNeeded"
    TOO_MANY_ACTIONS = "TooManyActions"
    INVALID = "Invalid"
    TIMED_OUT = "TimedOut"
    FAILED = "Failed"


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


class ConditionReason(StrEnum):
    """Reasons of the conditions that do not repeat the decision's reason."""

    PROGRESSING = "Progressing"
    VALID = "Valid"
    INVALID = "Invalid"
    APPLIED = "Applied"
    PENDING = "Pending"
    FAILED = "Failed"
    NOTHING_TO_EVALUATE = "NothingToEvaluate"
    WARMING_UP = "WarmingUp"
    MISSING = "Missing"
    AVAILABLE = "Available"
    SUSPENDED = "Suspended"
    PAUSED = "Paused"
    NOT_PAUSED = "NotPaused"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"
    NOT_ROLLED_BACK = "NotRolledBack"
    NO_SINKS_CONFIGURED = "NoSinksConfigured"
    SINK_FAILING = "SinkFailing"
    DELIVERED = "Delivered"


class DecisionAction(StrEnum):
    """What the operator does now; `status.decision.action`."""

    HOLD = "Hold"  # keep the step until its hold is over
    WAIT = "Wait"  # wait for a Job, an approval, evidence or a window
    PUBLISH = "Publish"  # publish the flag document and read it back
    MIGRATE = "Migrate"  # run a migration Job
    PAUSE = "Pause"  # an action, `suspend`, or a guard with onBreach Pause keeps the audience
    STALL = "Stall"  # manual intervention is required
    ROLL_BACK = "RollBack"  # turn the flags off, then undo the slower parts
    NONE = "None"  # nothing: the generation has ended


class DecisionReason(StrEnum):
    """Why the operator does that; `status.decision.reason` and the reason of the Ready condition."""

    NOT_DECIDED = "NotDecided"
    SUSPENDED = "Suspended"
    PAUSED = "Paused"
    INVALID_SPEC = "InvalidSpec"
    WORKLOAD_UNAVAILABLE = "WorkloadUnavailable"
    AWAITING_GATES = "AwaitingGates"
    AWAITING_APPROVAL = "AwaitingApproval"
    AWAITING_WINDOW = "AwaitingWindow"
    MIGRATION_RUNNING = "MigrationRunning"
    MIGRATION_FAILED = "MigrationFailed"
    MEASURING_BASELINE = "MeasuringBaseline"
    PUBLISHING = "Publishing"
    AWAITING_EVIDENCE = "AwaitingEvidence"
    HOLDING = "Holding"
    CRITERIA_NOT_MET = "CriteriaNotMet"
    CONFIRMING_CRITERIA = "ConfirmingCriteria"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    BAKING = "Baking"
    PUBLISHING_ROLLBACK = "PublishingRollback"
    AWAITING_MIGRATION = "AwaitingMigration"
    UNDOING_WORKLOAD = "UndoingWorkload"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"


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
    FLAGS_ENABLED = "FlagsEnabled"
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
