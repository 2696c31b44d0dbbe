"""The closed sets of the API about migrations: states, operations, reasons of failures. A value is never renamed."""

from enum import StrEnum


class MigrationState(StrEnum):
    """`status.migrations[].state` is the state of one migration."""

    PENDING = "Pending"  # The migration has not started.
    RUNNING = "Running"  # The Job of the migration is running.
    SUCCEEDED = "Succeeded"  # The migration is applied.
    FAILED = "Failed"  # The Job failed; see `reason` and `message`.
    REVERTING = "Reverting"  # The migration is being undone.
    REVERTED = "Reverted"  # The migration was undone.


class Operation(StrEnum):
    """`status.migrations[].operation` is the operation of a migration Job. The name of the Job contains it."""

    UP = "up"  # Apply the migration.
    DOWN = "down"  # Undo the migration.
    BACKUP = "backup"  # Take a snapshot of its tables.
    FINISH = "finish"  # Make the copied rows the source of truth.
    RESTORE = "restore"  # Restore rows from the snapshot.
    RETRY = "retry"  # Copy the rows in quarantine again.
    PRUNE = "prune"  # Delete snapshots that have expired.
    REPAIR = "repair"  # Replace damaged rows of the target: from the source, or after `finish` from a snapshot.
    PLAN = "plan"  # Show the SQL steps that `up` would apply, and their locks. It runs them and rolls back.
    STATUS = "status"  # Show what the ledger contains. It changes nothing.
    VERIFY = "verify"  # Compare both sides of a copy. It changes nothing.


class FailureReason(StrEnum):
    """`status.migrations[].reason` is the reason of a failed migration."""

    INVALID_ARGUMENTS = "InvalidArguments"  # Options of the command contradict each other or the bundle.
    INVALID_BUNDLE = "InvalidBundle"  # SQL files are missing, misnamed or combined in a way that cannot run.
    INVALID_COPY_SPEC = "InvalidCopySpec"  # `copy.yaml` has an invalid field.
    INVALID_CONNECTION_STRING = "InvalidConnectionString"  # The connection string cannot be parsed.
    CONNECTION_REJECTED = "ConnectionRejected"  # The password, the role, the database or `pg_hba.conf` is wrong.
    DATABASE_ERROR = "DatabaseError"  # The database returned an error that another attempt cannot change.
    LINT_FAILED = "LintFailed"  # The SQL violates a rule of `lint`.
    BUNDLE_CHANGED = "BundleChanged"  # An SQL step or `copy.yaml` was edited after it had been applied.
    BUNDLE_OUTDATED = "BundleOutdated"  # The ledger contains SQL steps that this bundle does not contain.
    STEP_FAILED = "StepFailed"  # The database rejected an SQL step.
    STEP_INCOMPLETE = "StepIncomplete"  # An index build was interrupted; `up` completes it.
    UNSUPPORTED_STATEMENT = "UnsupportedStatement"  # CONCURRENTLY is used with anything but an index.
    LOCK_TIMEOUT = "LockTimeout"  # A table lock was not granted within `lockDeadline`.
    CONCURRENT_MIGRATION = "ConcurrentMigration"  # Another `session-rollout-migrate` holds the lock or took over the copy.
    DATA_LOSS = "DataLoss"  # The operation would destroy data, and data loss is not allowed.
    POINT_OF_NO_RETURN = "PointOfNoReturn"  # The migration has passed its point of no return.
    PREFLIGHT_FAILED = "PreflightFailed"  # Privileges or disk space are missing, or a transaction pooler is used.
    MISSING_TABLE = "MissingTable"  # The source or the target of a copy does not exist.
    INVALID_KEY = "InvalidKey"  # The key of a copy is not a unique column.
    COPY_NOT_STARTED = "CopyNotStarted"  # The copy has not started.
    COPY_INCOMPLETE = "CopyIncomplete"  # Some rows have not been copied yet.
    COPY_FINISHED = "CopyFinished"  # The target has become the source of truth.
    ROWS_DIFFER = "RowsDiffer"  # Source and target are not equal.
    NO_SNAPSHOT = "NoSnapshot"  # No complete snapshot matches.
    TERMINATED = "Terminated"  # The Pod was terminated.
    DEADLINE_EXCEEDED = "DeadlineExceeded"  # The database did not recover within the deadline.


class NoReturn(StrEnum):
    """`status.migrations[].pointOfNoReturn` is the position of a migration relative to its point of no return."""

    AHEAD = "Ahead"  # The migration has not succeeded. It can be undone unless SQL step `pointOfNoReturn` has been applied.
    PASSED = "Passed"  # The migration succeeded, or its copy is finished. It can no longer be undone.
