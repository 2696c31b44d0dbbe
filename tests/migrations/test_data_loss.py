"""What would destroy data is refused: by `up` in anything but a Contract migration, by `down` unless it is allowed."""

from dataclasses import replace
from pathlib import Path

import pytest

from lab.sessions import run, value
from migrations.failures import failing
from migrations.schemas import LEDGER, bundle, rows, target
from session_rollout.api.migration_enums import FailureReason
from session_rollout.migrations.schema.bundle import Bundle, load
from session_rollout.migrations.schema.lint import lint
from session_rollout.migrations.schema.plan import plan
from session_rollout.migrations.schema.runner import down, up

# Valid SQL that the patterns of `lint` misread, and the table or column that it removes.
HIDDEN = {
    "escape string": (
        r"INSERT INTO notes VALUES (E'it\'s'); DROP TABLE old; INSERT INTO notes VALUES ('x');",
        "table public.old",
    ),
    "code block": ("DO $$ BEGIN DROP TABLE old; END $$;", "table public.old"),
    "nested comment": ("/* a /* nested */ ' */ SELECT 1; DROP TABLE old; SELECT 'x';", "table public.old"),
    "dropped column": ("DO $$ BEGIN ALTER TABLE old DROP COLUMN name; END $$;", "column public.old.name"),
    "renamed column": ("DO $$ BEGIN ALTER TABLE old RENAME name TO title; END $$;", "column public.old.name"),
    "renamed table": ("DO $$ BEGIN ALTER TABLE old RENAME TO older; END $$;", "table public.old"),
}


@pytest.mark.parametrize("form", HIDDEN)
def test_up_refuses_what_removes_a_table_or_column_however_it_is_written(dsn: str, tmp_path: Path, form: str) -> None:
    """The catalog is compared inside the transaction of the step: nothing is applied; a Contract migration may."""
    run(dsn, "CREATE TABLE old (id int, name text)", "CREATE TABLE notes (text text)", "INSERT INTO old VALUES (1, 'a')")
    text, removed = HIDDEN[form]
    migration = bundle(tmp_path, **{"0001_hidden": text})
    assert [finding for finding in lint(migration.steps) if finding.rule in {"destroys", "renames"}] == []
    with failing(FailureReason.DATA_LOSS, "0001_hidden.up.sql", removed, "`change"):
        up(target(dsn), migration)
    assert rows(dsn, LEDGER) == []
    assert value(dsn, "SELECT name FROM old") == "a"
    [planned] = plan(target(dsn), migration)
    assert [finding for finding in planned.findings if f"removes {removed}" in finding]
    up(target(dsn), replace(migration, change="Contract"))
    assert rows(dsn, LEDGER) == [1]
    assert value(dsn, "SELECT count(*) FROM information_schema.columns WHERE table_name = 'old' AND column_name = 'name'") == 0


def test_a_comment_that_allows_the_rule_lets_a_step_drop_a_table(dsn: str, tmp_path: Path) -> None:
    """The same comment disables the lint rule."""
    run(dsn, "CREATE TABLE scratch (id int)")
    up(target(dsn), bundle(tmp_path, **{"0001_drop": "-- session-rollout: allow destroys (empty)\nDROP TABLE scratch;"}))
    assert value(dsn, "SELECT to_regclass('scratch')") is None


def test_concurrently_in_a_string_does_not_disable_the_transaction(dsn: str, tmp_path: Path) -> None:
    """Only a file that is one CREATE INDEX or DROP INDEX runs without a transaction, where nothing could be rolled back."""
    run(dsn, "CREATE TABLE old (id int)")
    text = r"SELECT E'\' CREATE INDEX CONCURRENTLY a ON old (id)'; DROP TABLE old; SELECT 'x';"
    with failing(FailureReason.UNSUPPORTED_STATEMENT, "CONCURRENTLY"):
        up(target(dsn), bundle(tmp_path, **{"0001_hidden": text}))
    assert value(dsn, "SELECT to_regclass('old')") == "old"


def test_down_refuses_to_destroy_data_unless_allowed(dsn: str, tmp_path: Path) -> None:
    """Tables and columns that hold data; empty ones may be dropped."""
    run(dsn, "CREATE TABLE old (id int)", "INSERT INTO old VALUES (1)")
    texts = {
        "0001_one": "CREATE TABLE one (id int);",
        "0002_column": "ALTER TABLE old ADD COLUMN extra text;",
        "down_0001_one": "DROP TABLE one;",
        "down_0002_column": "ALTER TABLE old DROP COLUMN extra;",
    }
    migration = bundle(tmp_path, **texts)
    up(target(dsn), migration)
    run(dsn, "INSERT INTO one SELECT generate_series(1, 1234)")
    with failing(FailureReason.DATA_LOSS, "0001_one.down.sql", "public.one", "1,234", "`rollback.allowDataLoss`"):
        down(target(dsn), migration)
    assert rows(dsn, LEDGER) == [1, 2]  # nothing is undone unless all steps may be
    down(target(dsn), migration, to=1)  # the column is empty
    assert rows(dsn, LEDGER) == [1]
    up(target(dsn), migration)
    run(dsn, "UPDATE old SET extra = 'x'")
    with failing(FailureReason.DATA_LOSS, "public.old.extra"):
        down(target(dsn), migration)
    down(target(dsn), migration, allow_data_loss=True)
    assert rows(dsn, LEDGER) == []


def test_point_of_no_return_refuses_down_below_it(dsn: str, tmp_path: Path) -> None:
    """Also for a later run without `pointOfNoReturn`: the ledger has it."""
    texts = {"0001_one": "CREATE TABLE one (id int);", "0002_two": "CREATE TABLE two (id int);", "0003_three": "SELECT 1;"}
    bundle(tmp_path, **texts, down_0003_three="SELECT 1;")
    up(target(dsn), Bundle("mine", load(tmp_path, point_of_no_return=2)))
    with failing(FailureReason.POINT_OF_NO_RETURN, "0002_two"):
        down(target(dsn), Bundle("mine", load(tmp_path)), to=1)
    assert rows(dsn, LEDGER) == [1, 2, 3]
    with failing(FailureReason.INVALID_BUNDLE, "`pointOfNoReturn`", "7", "1, 2, 3"):
        load(tmp_path, point_of_no_return=7)
