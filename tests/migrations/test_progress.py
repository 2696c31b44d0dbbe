"""What a migration reports: sentences for a terminal, lines of JSON for the operator, and reasons for programs."""

import io
import json
from datetime import timedelta

import pytest

from session_rollout.api.migration_enums import FailureReason
from session_rollout.api.progress import Progress, progress_text
from session_rollout.errors import BundleError, Interrupted, MigrationError, MigrationFailed, RolloutError
from session_rollout.migrations.progress import Reporter, to_json, to_sentence


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"done": 420_000, "total": 1_000_000}, "42% (420,000 of 1,000,000 rows)"),
        ({"done": None, "total": 7}, "0% (0 of 7 rows)"),
        ({"done": 0, "total": 0}, "100% (0 of 0 rows)"),
        (
            {"done": 1, "total": 4, "rate": 1200, "remaining": timedelta(seconds=93), "quarantined": 12, "following": True},
            "25% (1 of 4 rows), 1,200 rows/s, 1 min 33 s left, 12 quarantined, following changes",
        ),
        ({"done": 3, "total": 4, "remaining": timedelta(milliseconds=20)}, "75% (3 of 4 rows), 1 s left"),
    ],
)
def test_progress_text(fields: dict[str, object], text: str) -> None:
    """Parts without a value are omitted."""
    assert progress_text(**fields) == text  # type: ignore[arg-type]


@pytest.mark.usefixtures("prose")
def test_a_sentence_has_message_numbers_and_what_is_waited_for() -> None:
    progress = Progress(message="copying", done=1, total=2, waiting="a lock")
    assert to_sentence(progress) == "copying, 50% (1 of 2 rows), waiting: a lock"
    assert to_sentence(Progress()) == ""


@pytest.mark.usefixtures("prose")
def test_a_line_of_json_can_be_read_by_an_older_and_a_newer_operator() -> None:
    """Unknown fields and unknown reasons are accepted."""
    progress = Progress(message="no lock", reason=FailureReason.LOCK_TIMEOUT)
    assert json.loads(to_json(progress)) == {"message": "no lock", "reason": "LockTimeout"}
    newer = Progress.model_validate_json('{"message": "x", "reason": "NewReason", "newField": 1}')
    assert newer.reason == "NewReason"


@pytest.mark.usefixtures("prose")
def test_progress_is_printed_once_per_second_unless_it_is_news() -> None:
    """A wait is news once; long messages are clipped instead of rejected."""
    stream = io.StringIO()
    reporter = Reporter(stream=stream, line_of=to_sentence)
    reporter.update(message="first", now=True)
    reporter.update(message="second")
    reporter.wait_for("a lock")
    reporter.wait_for("a lock still")
    assert stream.getvalue().splitlines() == ["first", "second, waiting: a lock"]
    reporter.close(message="x" * 600)
    assert len(reporter.last.message) == 512
    assert reporter.last.waiting == ""


@pytest.mark.parametrize("kind", [MigrationFailed, Interrupted, BundleError])
def test_errors_of_migrations_are_in_the_one_tree(kind: type[MigrationError]) -> None:
    """With a reason that `Progress` accepts."""
    for reason in FailureReason:
        error = kind("a message", reason)
        assert isinstance(error, RolloutError)
        assert Progress(reason=error.reason).reason == reason
