"""The closed sets of the API. A value is never renamed, and its comment is its description in the generated reference pages."""

from enum import StrEnum


class Verdict(StrEnum):
    """A verdict is the result of evaluating a criterion, a guard or a gate."""

    PASS = "Pass"  # The value is within its bound.  # noqa: S105
    FAIL = "Fail"  # The value is outside its bound.
    INCONCLUSIVE = "Inconclusive"  # There is a result, but it does not allow a verdict.
    NO_DATA = "NoData"  # Prometheus responded without a number.
    PROVIDER_ERROR = "ProviderError"  # Prometheus could not be queried.
    NOT_EVALUATED = "NotEvaluated"  # The check has not been evaluated yet.

    @property
    def is_evidence(self) -> bool:
        """Whether the verdict was measured. The hold timer counts only time in which every criterion and guard has such a verdict."""
        return self in {Verdict.PASS, Verdict.FAIL}


class CheckKind(StrEnum):
    """`status.checks[].kind` is the list of the spec that a check comes from."""

    CRITERION = "Criterion"  # An entry of `phases[].criteria`.
    GUARD = "Guard"  # An entry of `guards`.
    PREFLIGHT = "Preflight"  # An entry of `preflight`.
    VERIFICATION = "Verification"  # An entry of `phases[].verification`.
    AFTER_ROLLBACK = "AfterRollback"  # An entry of `rollback.verification`.


class CheckReason(StrEnum):
    """`status.checks[].reason` is the reason of a verdict."""

    WITHIN_BOUND = "WithinBound"  # The value satisfies `above`, `below` or `between`.
    OUT_OF_BOUND = "OutOfBound"  # The value violates `above`, `below` or `between`.
    WITHIN_TOLERANCE = "WithinTolerance"  # The change is within `maxIncrease`, `maxDecrease` or `minIncrease`.
    OUT_OF_TOLERANCE = "OutOfTolerance"  # The change is outside `maxIncrease`, `maxDecrease` or `minIncrease`.
    TOLERANCE_UNCLEAR = "ToleranceUnclear"  # The confidence interval of the change contains the bound.
    HARM_SHOWN = "HarmShown"  # More bad events with the feature than `tolerate` allows are shown.
    HARMLESSNESS_SHOWN = "HarmlessnessShown"  # It is shown that there are no more bad events than `tolerate` allows.
    COMPARISON_OPEN = "ComparisonOpen"  # Neither is shown yet. The time counts for the hold, and the step does not end.
    NO_CONTROL = "NoControl"  # Nobody or everybody has the feature, so that there is nothing to compare.
    NO_DATA_PASSES = "NoDataPasses"  # The query returned no series or NaN, which passes because of `onNoData: Pass`.
    NO_DATA_FAILS = "NoDataFails"  # The query returned no series or NaN, which fails because of `onNoData: Fail`.
    WARMING_UP = "WarmingUp"  # The query range still contains data of the previous audience.
    AWAITING_RESULT = "AwaitingResult"  # There is no result of the query or the check yet.
    BASELINE_MISSING = "BaselineMissing"  # There is no baseline from the time before the phase was published.
    BASELINE_MEASURED = "BaselineMeasured"  # The baseline was measured; the first comparison follows.
    STALE_SAMPLE = "StaleSample"  # The sample is much older or newer than the time of the provider.
    STALE_RESULT = "StaleResult"  # The last result is too old, because the provider stopped responding, or later events are still to be read.
    EMPTY_RESULT = "EmptyResult"  # The query returned no series: no such series exists, or none matches.
    NOT_A_NUMBER = "NotANumber"  # The result is NaN, such as 0/0 of a ratio: there is no traffic.
    INFINITE_VALUE = "InfiniteValue"  # The result is infinite.
    MULTIPLE_SERIES = "MultipleSeries"  # The query returned more than one series.
    NOT_A_SAMPLE = "NotASample"  # The result is not a scalar or an instant vector.
    PARTIAL_RESULT = "PartialResult"  # Prometheus returned a warning that the result is incomplete.
    NO_SEASONS = "NoSeasons"  # Prometheus no longer has any of the earlier seasons that the value is compared with.
    ZERO_BASELINE = "ZeroBaseline"  # The baseline is 0, of which every percentage is 0: a tolerance with % says nothing.
    NO_COHORTS = "NoCohorts"  # `comparedTo: Control` requires a metric with `cohorts`.
    NO_VARIANTS = "NoVariants"  # No series has the label `variant` with the value `on` or `off`.
    NO_EVENTS = "NoEvents"  # A cohort has no events.
    NO_BAD_COUNTER = "NoBadCounter"  # Bad events are counted by no series, of anybody, and none was counted before: the selector may be wrong.
    NOT_EXPOSED = "NotExposed"  # Too few events with the feature since its audience was published.
    NOT_APPLIED = "NotApplied"  # Another share of events has the feature than the published one.
    UNEVEN_CELLS = "UnevenCells"  # Some series have the label `cell`, and others have not, or have more than 64 values of it.
    NO_CELLS = "NoCells"  # A comparison of means requires the label `cell`, which no series has.
    IMPOSSIBLE_COUNTS = "ImpossibleCounts"  # A cohort has more good (or bad) events than events, a negative number of them, or events without a sum of their values.
    NOT_A_COUNT = "NotACount"  # A count is negative, infinite or not a number.
    ANY_RATE_TOLERATED = "AnyRateTolerated"  # No rate of bad events would be too high, so that nothing can fail: nearly every event is bad without the feature, or counted as bad.
    TOO_FEW_EVENTS = "TooFewEvents"  # A cohort has fewer than 50 events.
    BELOW_MINIMUM = "BelowMinimum"  # The metric in `minimum` is not above its bound, so there are too few events for a verdict.
    UNKNOWN_PROVIDER = "UnknownProvider"  # The operator's configuration has no provider with this name.
    NAME_NOT_RESOLVED = "NameNotResolved"  # The host name of the provider could not be resolved.
    CERTIFICATE_REJECTED = "CertificateRejected"  # The certificate of the provider is untrusted, expired, or for another host.
    TLS_FAILED = "TlsFailed"  # TLS with the provider failed for another reason than its certificate.
    CONNECTION_FAILED = "ConnectionFailed"  # The provider or the Service could not be reached.
    TIMED_OUT = "TimedOut"  # There was no response within the timeout.
    QUERY_REJECTED = "QueryRejected"  # The provider rejected the query.
    RESPONSE_TOO_LARGE = "ResponseTooLarge"  # The response is larger than `maxResponseBytes`.
    INVALID_RESPONSE = "InvalidResponse"  # The response is not a valid response of the Prometheus API.
    CREDENTIALS_UNREADABLE = "CredentialsUnreadable"  # The token file or the CA file could not be read.
    INTERNAL_ERROR = "InternalError"  # The operator failed to run the check. For the error, see the operator's log.
    AWAITING_APPROVAL = "AwaitingApproval"  # The gate requires manual approval.
    APPROVED = "Approved"  # An `Approve` action approved the gate.
    JOB_STARTED = "JobStarted"  # The Job of the gate was created.
    JOB_RUNNING = "JobRunning"  # The Job of the gate is running.
    JOB_SUCCEEDED = "JobSucceeded"  # The Job of the gate succeeded.
    JOB_FAILED = "JobFailed"  # The Job of the gate failed.
    CHECK_SUCCEEDED = "CheckSucceeded"  # The HTTP request or the built-in gate passed.
    CHECK_FAILED = "CheckFailed"  # The HTTP request or the built-in gate failed.
    NOT_CONFIGURED = "NotConfigured"  # The configuration does not contain what the check needs.

    @property
    def is_open(self) -> bool:
        """Whether there is evidence, and not enough of it: it counts for the hold, and nothing is promoted on it."""
        return self is CheckReason.COMPARISON_OPEN

    @property
    def is_absence(self) -> bool:
        """Whether the query returned no series or NaN, which is what `onNoData` is about."""
        return self in {CheckReason.EMPTY_RESULT, CheckReason.NOT_A_NUMBER}


class Stage(StrEnum):
    """`status.current.stage` is the stage of a rollout."""

    PREFLIGHT = "Preflight"  # The workload and the preflight gates are checked.
    BEFORE = "MigrationsBefore"  # The migrations in `migrations.before` of the phase run.
    BASELINE = "Baseline"  # The baselines of the phase are measured.
    STEP = "Step"  # A step is published and held, and its criteria are evaluated.
    VERIFICATION = "Verification"  # The verification gates of the phase are checked.
    AFTER = "MigrationsAfter"  # The migrations in `migrations.after` of the phase run.
    BAKE = "Bake"  # All phases are complete, and guards are still evaluated.
    ROLLING_BACK = "RollingBack"  # A rollback is running.
    ENDED = "Ended"  # The generation has ended.


class State(StrEnum):
    """`status.state` is the state of a rollout in one word. The STATUS column shows it."""

    PROGRESSING = "Progressing"  # The rollout advances, holds a step, or waits for an event or an approval.
    PAUSED = "Paused"  # A `Pause` action, a guard or `spec.suspend` keeps the audience as it is.
    STALLED = "Stalled"  # The rollout cannot continue by itself, or a deadline was exceeded.
    PROMOTED = "Promoted"  # All phases and the bake are complete.
    ROLLED_BACK = "RolledBack"  # A guard or a deadline rolled the rollout back.
    ABORTED = "Aborted"  # An `Abort` action rolled the rollout back.


class Outcome(StrEnum):
    """`status.outcome` is how a generation ended. It is unset while the generation runs."""

    PROMOTED = "Promoted"  # All phases and the bake are complete.
    ROLLED_BACK = "RolledBack"  # A guard or a deadline rolled the generation back.
    ABORTED = "Aborted"  # An `Abort` action rolled the generation back.


class PhaseState(StrEnum):
    """`status.phases[].state` is the state of one phase."""

    PENDING = "Pending"  # The phase has not started.
    RUNNING = "Running"  # The phase is running.
    COMPLETED = "Completed"  # All steps, gates and migrations of the phase are complete.
    ROLLED_BACK = "RolledBack"  # The features of the phase were rolled back.


class ActionType(StrEnum):
    """`spec.action` is the request of a SessionRolloutAction."""

    APPROVE = "Approve"  # Approve a step or a gate of this generation.
    PROMOTE = "Promote"  # Complete the current step without waiting for its hold, criteria or approval, even outside windows. Guards are still evaluated.
    PAUSE = "Pause"  # Keep the audience as it is; guards still protect users.
    RESUME = "Resume"  # Resume a paused rollout.
    ABORT = "Abort"  # Roll the rollout back.
    ADOPT = "Adopt"  # Resume from the flag document in the cluster, when it gives more than the status knows.
    RESET = "Reset"  # Start from the beginning in spite of the flag document in the cluster. Users lose the features until their phase.
    RETRY = "Retry"  # Start the rolled-back phase again, retry the failed migration or the failed Job of a gate, or begin a placebo step again.
    EMERGENCY_DISABLE = "EmergencyDisable"  # Turn features off for all users immediately.
    EMERGENCY_ENABLE = "EmergencyEnable"  # End an emergency disable: features follow the rollout again.
    RESTORE_DATA = "RestoreData"  # Restore rows from the snapshot of a migration.
    RETRY_MIGRATION = "RetryMigration"  # Retry a failed migration, or its quarantined rows.
    BACKUP_DATA = "BackupData"  # Take a snapshot of the tables of a migration.
    REPAIR_DATA = "RepairData"  # Replace damaged rows of a target: from the source, or after `finish` from a snapshot.
    MIGRATE_DOWN = "MigrateDown"  # Undo a migration after the rollout has been rolled back or aborted.
    RESTART_WORKLOAD = "RestartWorkload"  # Restart the Pods of the workload.
    UNDO_WORKLOAD = "UndoWorkload"  # Roll the workload back to its previous revision.
    VERIFY = "Verify"  # Evaluate the gates now, including their Jobs, and report the results. It does not change the rollout.
    DIAGNOSE = "Diagnose"  # Run the queries of a diagnostics topic. It does not change the rollout.
    INSPECT_MIGRATION = "InspectMigration"  # Show the plan, the status or the comparison of a migration. It changes no data.

    @property
    def is_read_only(self) -> bool:
        """Whether the action leaves the rollout as it is. Such an action runs independently of decisions."""
        return self in {ActionType.VERIFY, ActionType.DIAGNOSE, ActionType.INSPECT_MIGRATION}

    @property
    def protects_users(self) -> bool:
        """Whether the action turns features off or stops progress. It is accepted even when the queue of responses is full."""
        return self in {ActionType.EMERGENCY_DISABLE, ActionType.PAUSE, ActionType.ABORT}


class ActionReason(StrEnum):
    """`status.reason` of an action is the reason of the response. The `Accepted` condition has the same reason."""

    ACCEPTED = "Accepted"  # The action was accepted.
    SUSPENDED = "Suspended"  # The rollout is suspended: it rejects all actions except EmergencyDisable, EmergencyEnable, Verify, Diagnose and InspectMigration.
    UNKNOWN_FEATURE = "UnknownFeature"  # A name in `features` is not a feature. An `EmergencyDisable` action is accepted all the same if others are: these are off.
    UNKNOWN_MIGRATION = "UnknownMigration"  # The spec has no migration with this name, or the migration has not started.
    UNKNOWN_CHECK = "UnknownCheck"  # No gate with this name is defined or waiting for approval.
    UNKNOWN_TOPIC = "UnknownTopic"  # The configuration has no diagnostics topic with this name.
    UNKNOWN_ROLLOUT = "UnknownRollout"  # The namespace has no SessionRollout with this name.
    NOTHING_DISABLED = "NothingDisabled"  # No feature is disabled in an emergency.
    EMERGENCY_IS_NEWER = "EmergencyIsNewer"  # The emergency began after the action was created, or an EmergencyDisable action of the same second has no response yet.
    ALREADY_PAUSED = "AlreadyPaused"  # The rollout is already paused.
    NOT_PAUSED = "NotPaused"  # The rollout is not paused.
    NOT_RUNNING = "NotRunning"  # The generation has ended.
    ALREADY_ROLLING_BACK = "AlreadyRollingBack"  # The rollout is already rolling back.
    NOTHING_TO_RETRY = "NothingToRetry"  # Nothing has failed or was rolled back.
    NO_SNAPSHOT = "NoSnapshot"  # The migration has no snapshot.
    MIGRATION_RUNNING = "MigrationRunning"  # A Job of the migration is still running.
    MIGRATION_NOT_APPLIED = "MigrationNotApplied"  # The migration is not applied with the bundle of the spec.
    COPIES_NO_ROWS = "CopiesNoRows"  # The migration copies no rows.
    PHASE_NOT_ROLLED_BACK = "PhaseNotRolledBack"  # The rollout was not rolled back or aborted, or its users keep this phase.
    POINT_OF_NO_RETURN_PASSED = "PointOfNoReturnPassed"  # The migration has passed its point of no return.
    NO_WORKLOAD = "NoWorkload"  # The spec names no workload.
    OTHER_GENERATION = "OtherGeneration"  # A different generation is active.
    EXPIRED = "Expired"  # The operator could not decide on the action in time: it skips checks, and its author has seen the application too long ago.
    OUTDATED = "Outdated"  # The action is older than what it would undo or approve, or than the rollout: its author did not know of it.
    OTHER_STEP = "OtherStep"  # The rollout is in a different phase or step, or at a different percentage of a ramp.
    NO_APPROVAL_NEEDED = "NoApprovalNeeded"  # The step does not require approval.
    TOO_MANY_ACTIONS = "TooManyActions"  # Too many actions are waiting for a response.
    PAUSED = "Paused"  # The rollout is paused.
    STALLED = "Stalled"  # The rollout is stalled because of its spec or its configuration.
    NOT_PUBLISHED = "NotPublished"  # The audience of the step was not read back, or the hold to be approved has not begun.
    FEATURE_DISABLED = "FeatureDisabled"  # An emergency disables a feature that the step or the gate is about.
    FOREIGN_DOCUMENT = "ForeignDocument"  # The flag document belongs to another rollout, or was not written by one.
    ADOPTION_REQUIRED = "AdoptionRequired"  # The flag document gives more than the status knows: first `Adopt` or `Reset`.
    NOTHING_TO_ADOPT = "NothingToAdopt"  # The status knows what the flag document gives.
    NO_MATCHING_STEP = "NoMatchingStep"  # The flag document has an audience that no step of the spec has.
    SUPERSEDED = "Superseded"  # An EmergencyEnable lifted the emergency before the flag document could be written.
    DELETING = "Deleting"  # The rollout is being deleted: it accepts only what protects users.
    INVALID = "Invalid"  # The action or the rollout cannot be parsed.
    TIMED_OUT = "TimedOut"  # The action did not finish in time.
    FAILED = "Failed"  # The action could not be carried out; the message contains the error.


class Condition(StrEnum):
    """`status.conditions[].type` is the type of a condition. The first three follow kstatus."""

    READY = "Ready"  # Whether the rollout is promoted.
    RECONCILING = "Reconciling"  # Whether the rollout progresses.
    STALLED = "Stalled"  # Whether the rollout cannot continue by itself, exceeded a deadline, or was rolled back or aborted.
    SPEC_VALID = "SpecValid"  # Whether the spec and the configuration that it refers to are valid.
    MIGRATIONS_APPLIED = "MigrationsApplied"  # Whether every migration is applied.
    EVIDENCE_AVAILABLE = "EvidenceAvailable"  # Whether criteria and guards have verdicts of Pass or Fail about this audience.
    PAUSED = "Paused"  # Whether an action, a guard or `spec.suspend` paused the rollout.
    ROLLED_BACK = "RolledBack"  # Whether the rollout was rolled back or aborted.
    EMERGENCY_ACTIVE = "EmergencyActive"  # Whether an emergency turns a feature off for all users.
    NOTIFIED = "Notified"  # Whether every sink accepts notifications.


class ConditionReason(StrEnum):
    """`status.conditions[].reason` is one of these reasons, unless the condition repeats the reason of the decision."""

    PROGRESSING = "Progressing"  # `Stalled`: the rollout is not stalled, rolled back or aborted.
    VALID = "Valid"  # `SpecValid`: the spec can be carried out.
    INVALID = "Invalid"  # `SpecValid`: the message lists the problems.
    APPLIED = "Applied"  # `MigrationsApplied`: every migration is applied, or there is none.
    PENDING = "Pending"  # `MigrationsApplied`: the message lists the migrations that are not applied yet.
    FAILED = "Failed"  # `MigrationsApplied`: the message lists the migrations that failed.
    NOTHING_TO_EVALUATE = "NothingToEvaluate"  # `EvidenceAvailable`: the rollout is neither in a step nor in the bake, or the operator cannot evaluate it.
    WARMING_UP = "WarmingUp"  # `EvidenceAvailable`: the first verdicts of criteria and guards about this audience are pending.
    MISSING = "Missing"  # `EvidenceAvailable`: the message lists the criteria and guards without a verdict of Pass or Fail.
    AVAILABLE = "Available"  # `EvidenceAvailable`: every criterion and guard has `Pass` or `Fail`.
    SUSPENDED = "Suspended"  # `Paused`: `spec.suspend` is true.
    PAUSED = "Paused"  # `Paused`: the message names the action or the guard.
    NOT_PAUSED = "NotPaused"  # `Paused`: the rollout is not paused.
    ROLLING_BACK = "RollingBack"  # `RolledBack`: a rollback is running.
    ROLLED_BACK = "RolledBack"  # `RolledBack`: a guard or a deadline rolled the rollout back.
    ABORTED = "Aborted"  # `RolledBack`: an `Abort` action rolled the rollout back.
    NOT_ROLLED_BACK = "NotRolledBack"  # `RolledBack`: the rollout was not rolled back.
    FEATURES_DISABLED = "FeaturesDisabled"  # `EmergencyActive`: the message names the features and who disabled them.
    NOT_IN_FORCE = "NotInForce"  # `EmergencyActive` and `RolledBack`: the flag document still gives users a feature of an emergency or of a rollback, or an emergency names what is not a feature.
    NO_EMERGENCY = "NoEmergency"  # `EmergencyActive`: no emergency is in force.
    NO_SINKS_CONFIGURED = "NoSinksConfigured"  # `Notified`: the spec has no notifications.
    SINK_FAILING = "SinkFailing"  # `Notified`: the message names the failing sinks and their errors.
    DELIVERED = "Delivered"  # `Notified`: every sink accepts notifications.


class DecisionAction(StrEnum):
    """`status.decision.action` is the action that the operator takes."""

    HOLD = "Hold"  # Keep the step until its hold is complete.
    WAIT = "Wait"  # Wait for a Job, an approval, evidence or a window.
    PUBLISH = "Publish"  # Publish the flag document and read it back.
    MIGRATE = "Migrate"  # Run a migration Job.
    PAUSE = "Pause"  # Keep the audience, because of an action, a guard or `spec.suspend`.
    STALL = "Stall"  # Keep the audience, because the rollout cannot continue by itself or a deadline was exceeded.
    ROLL_BACK = "RollBack"  # Change the flags as `rollback.scope` specifies, then roll back what else `spec.rollback` requests.
    NONE = "None"  # Do nothing, because the generation has ended.


class DecisionReason(StrEnum):
    """`status.decision.reason` is the reason of the decision. The `Ready` condition has the same reason."""

    NOT_DECIDED = "NotDecided"  # The operator has not made a decision yet.
    SUSPENDED = "Suspended"  # `spec.suspend` is true.
    PAUSED = "Paused"  # A `Pause` action or a guard with `onBreach: Pause` paused the rollout.
    INVALID_SPEC = "InvalidSpec"  # The spec or its configuration has a problem, the CRD is older than the operator, or another operator writes the status.
    ADOPTION_REQUIRED = "AdoptionRequired"  # The flag document gives more than the status knows: `Adopt` it, or `Reset`.
    DOCUMENT_CONTESTED = "DocumentContested"  # Somebody else keeps writing the flag document; see `status.flags.drift`.
    REQUEST_REFUSED = "RequestRefused"  # The API server refuses a request that the rollout needs; see `status.refusals`.
    INTERNAL_ERROR = "InternalError"  # The operator failed to decide, and carries out only emergencies.
    DELETING = "Deleting"  # The rollout is being deleted and waits for Jobs: only what protects users is carried out.
    UNPARSABLE = "Unparsable"  # The operator cannot parse the object, and carries out only emergencies; see the message.
    GUARD_FAILING = "GuardFailing"  # A guard is in breach: the audience does not grow, and `migrations.after` waits.
    WORKLOAD_UNAVAILABLE = "WorkloadUnavailable"  # The workload is not available.
    AWAITING_GATES = "AwaitingGates"  # A preflight or verification gate has not passed yet.
    AWAITING_APPROVAL = "AwaitingApproval"  # A step or a gate requires manual approval, or `RetryMigration` a migration of a phase that `Adopt` completed.
    AWAITING_WINDOW = "AwaitingWindow"  # No window is open.
    MIGRATION_RUNNING = "MigrationRunning"  # A migration Job is running.
    MIGRATION_FAILED = "MigrationFailed"  # A migration failed.
    MEASURING_BASELINE = "MeasuringBaseline"  # The baseline of a metric has no value yet.
    PUBLISHING = "Publishing"  # The flag document has not been read back yet.
    FEATURE_DISABLED = "FeatureDisabled"  # An emergency disables a feature of the phase, or in the bake and before a `Contract` migration any feature of the rollout; nothing advances.
    AWAITING_EVIDENCE = "AwaitingEvidence"  # A criterion or a guard has no verdict of Pass or Fail about this audience; the hold timer does not run, and no migration of `migrations.after` starts.
    HOLDING = "Holding"  # The hold of the step is not complete.
    CRITERIA_NOT_MET = "CriteriaNotMet"  # A criterion fails after the hold, or has passed for less than its `passShare` of it.
    CONFIRMING_CRITERIA = "ConfirmingCriteria"  # A criterion has failed in the last 10 intervals; it must pass in all of them.
    NOT_EXPOSED = "NotExposed"  # Users did not receive the feature within `control.exposure.deadline`.
    NOT_APPLIED = "NotApplied"  # Another share of events has the feature than the published one, such as none.
    COMPARISON_BROKEN = "ComparisonBroken"  # A comparison fails in a placebo step, in which nobody has the features.
    DEADLINE_EXCEEDED = "DeadlineExceeded"  # Failing criteria or missing evidence delayed the step for longer than `deadline`.
    BAKING = "Baking"  # The bake is not complete.
    PUBLISHING_ROLLBACK = "PublishingRollback"  # The flag document of the rollback has not been read back yet.
    AWAITING_MIGRATION = "AwaitingMigration"  # A rollback waits for a running migration.
    UNDOING_WORKLOAD = "UndoingWorkload"  # A rollback waits for the workload to roll back.
    PROMOTED = "Promoted"  # The rollout is promoted.
    ROLLED_BACK = "RolledBack"  # The rollout was rolled back.
    ABORTED = "Aborted"  # The rollout was aborted.


class EventReason(StrEnum):
    """Name of an event, as in `status.history[].event` and in the reason of the Kubernetes Event."""

    STARTED = "Started"  # The operator started the first generation of the rollout.
    PHASE_STARTED = "PhaseStarted"  # A phase started.
    STEP_PUBLISHED = "StepPublished"  # The audience of a step was published and read back.
    AUDIENCE_LAPSED = "AudienceLapsed"  # An audience could not be published while its evidence was recent; the audience before it is held again.
    STEP_PASSED = "StepPassed"  # A step is complete; the message lists its criteria.
    PHASE_COMPLETED = "PhaseCompleted"  # All steps, gates and migrations of a phase are complete.
    BAKE_STARTED = "BakeStarted"  # All phases are complete, and the bake started.
    HOLDBACK_RELEASED = "HoldbackReleased"  # The bake is over, and the users who were held back get the features, too.
    EVIDENCE_LOST = "EvidenceLost"  # Evidence is missing: a criterion or a guard has no verdict of Pass or Fail about this audience, and the hold timer is paused; or blocks of events are too old to be read.
    EVIDENCE_BACK = "EvidenceBack"  # Evidence is available again for every criterion and guard.
    GUARD_BREACHED = "GuardBreached"  # A guard was breached for at least its `for`.
    MIGRATION_STARTED = "MigrationStarted"  # A migration Job was started.
    MIGRATION_SUCCEEDED = "MigrationSucceeded"  # A migration Job succeeded.
    MIGRATION_FAILED = "MigrationFailed"  # A migration Job failed.
    MIGRATION_WITHDRAWN = "MigrationWithdrawn"  # A migration Job that had not begun was suspended for good.
    MIGRATION_KEPT = "MigrationKept"  # A rollback kept a migration; the message contains the reason.
    POINT_OF_NO_RETURN = "PointOfNoReturnAhead"  # A migration contains an SQL step that cannot be undone. The Event is emitted before the migration starts.
    APPROVAL_NEEDED = "ApprovalNeeded"  # A step requires manual approval.
    ACTION_ACCEPTED = "ActionAccepted"  # An action was accepted.
    ACTION_REJECTED = "ActionRejected"  # An action was rejected; the message contains the reason.
    PAUSED = "Paused"  # The rollout was paused.
    RESUMED = "Resumed"  # The rollout was resumed.
    STALLED = "Stalled"  # The rollout cannot continue by itself, or a deadline was exceeded.
    ROLLBACK_STARTED = "RollbackStarted"  # A rollback started; the message lists the causes.
    PROMOTED = "Promoted"  # The rollout is promoted.
    ROLLED_BACK = "RolledBack"  # The rollback is complete.
    ABORTED = "Aborted"  # The rollback after an `Abort` action is complete.
    SUPERSEDED = "Superseded"  # A change of the spec started a new generation.
    FLAGS_DISABLED = "FlagsDisabled"  # Features were turned off in an emergency.
    FLAGS_ENABLED = "FlagsEnabled"  # An emergency disable ended, and features follow the rollout again.
    FLAGS_NOT_RELEASED = "FlagsNotReleased"  # The rollout was deleted, and its flag document was left with features on.
    FEATURE_SHARED = "FeatureShared"  # Another rollout of the namespace has a feature with the same name.
    DOCUMENT_KEPT = "FlagDocumentKept"  # The flag document gives more than the status knows, so it is kept as it is.
    DOCUMENT_ADOPTED = "FlagDocumentAdopted"  # An `Adopt` action resumed from the flag document.
    DOCUMENT_RESET = "FlagDocumentReset"  # A `Reset` action started from the beginning in spite of the flag document.
    FLAG_DRIFT = "FlagDriftCorrected"  # The flag document was changed externally, and the operator restored it.
    CLOCK_JUMPED = "ClockJumped"  # The clock of the API server or of the operator's node was set. Decisions use elapsed time, so no timer changes.
    CHECK_FAILED = "CheckFailed"  # A gate failed.
    ROLLBACK_VERIFIED = "RollbackVerified"  # All gates in `rollback.verification` passed.
    WORKLOAD_UNDONE = "WorkloadUndone"  # The Deployment was rolled back to its previous revision.
    WORKLOAD_KEPT = "WorkloadKept"  # The Deployment could not be rolled back or restarted; the message contains the reason.
    WORKLOAD_RESTARTED = "WorkloadRestarted"  # The Pods of the Deployment are being replaced.

    @property
    def is_warning(self) -> bool:
        """Whether the Event has type Warning."""
        return self in _WARNINGS


_WARNINGS = frozenset(
    {
        EventReason.EVIDENCE_LOST,
        EventReason.AUDIENCE_LAPSED,
        EventReason.GUARD_BREACHED,
        EventReason.MIGRATION_FAILED,
        EventReason.MIGRATION_WITHDRAWN,
        EventReason.MIGRATION_KEPT,
        EventReason.POINT_OF_NO_RETURN,
        EventReason.ACTION_REJECTED,
        EventReason.STALLED,
        EventReason.ROLLBACK_STARTED,
        EventReason.ROLLED_BACK,
        EventReason.ABORTED,
        EventReason.FLAGS_DISABLED,
        EventReason.FLAG_DRIFT,
        EventReason.CLOCK_JUMPED,
        EventReason.FLAGS_NOT_RELEASED,
        EventReason.FEATURE_SHARED,
        EventReason.DOCUMENT_KEPT,
        EventReason.DOCUMENT_RESET,
        EventReason.CHECK_FAILED,
        EventReason.WORKLOAD_UNDONE,
        EventReason.WORKLOAD_KEPT,
    }
)
