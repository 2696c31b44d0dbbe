"""Bundles: their files and the lint rules for their SQL."""

from pathlib import Path

import pytest

from lab.sessions import SCHEMA
from migrations.failures import failing
from migrations.schemas import STEPS, bundle, target
from session_rollout.api.migration_enums import FailureReason
from session_rollout.errors import BundleError
from session_rollout.migrations.schema.bundle import Step, load, shipped
from session_rollout.migrations.schema.lint import lint
from session_rollout.migrations.schema.runner import up


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "has no file NNNN_name.up.sql"),
        ({"1_x.up.sql": ""}, "the name must be like 0001_create_tables.up.sql"),
        ({"0001_x.up.sql": ""}, "both an .up.sql and a .down.sql"),
        ({"0001_x.up.sql": "", "0001_x.down.sql": "", "0001_y.up.sql": "", "0001_y.down.sql": ""}, "same number"),
        (
            {"0001_x.up.sql": "SELECT 1; CREATE INDEX CONCURRENTLY a ON b (c);", "0001_x.down.sql": ""},
            "has 2 statements, one of them CONCURRENTLY",
        ),
    ],
)
def test_invalid_bundles_are_refused_with_what_is_allowed(tmp_path: Path, files: dict[str, str], words: str) -> None:
    """Without a connection."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(BundleError, match=words):
        load(tmp_path)


def test_unknown_bundle_is_refused_with_the_known_ones() -> None:
    """A typo can be corrected from the message."""
    with pytest.raises(BundleError, match=f"allowed are {SCHEMA}, session-persistence/sessions"):
        shipped("session-persistence/sesions")


BAD = [
    ("index-blocks-writes", "CREATE INDEX a ON users (email);"),
    ("index-blocks-writes", "CREATE UNIQUE INDEX a ON users\n (email);"),
    ("constraint-scans", "ALTER TABLE users ADD CONSTRAINT c CHECK (id IS NOT NULL);"),
    ("constraint-scans", "ALTER TABLE users ADD FOREIGN KEY (id) REFERENCES other (id);"),
    ("inline-reference", "CREATE TABLE a (user_id uuid REFERENCES users (id));"),
    ("rewrites-table", "ALTER TABLE users ALTER COLUMN email TYPE varchar(10);"),
    ("volatile-default", "ALTER TABLE users ADD COLUMN token uuid DEFAULT gen_random_uuid();"),
    ("not-null-scans", "ALTER TABLE users ALTER COLUMN email SET NOT NULL;"),
    ("not-null-scans", "ALTER TABLE users ADD COLUMN n int NOT NULL;"),
    ("blocks-all", "LOCK TABLE users;"),
    ("transaction-control", "BEGIN; SELECT 1; COMMIT;"),
    ("destroys", "DROP TABLE users;"),
    ("destroys", "ALTER TABLE users DROP COLUMN email;"),
    ("destroys", "TRUNCATE users;"),
    ("destroys", "DELETE FROM users;"),
    ("renames", "ALTER TABLE users RENAME COLUMN email TO mail;"),
]
GOOD = [
    "CREATE INDEX CONCURRENTLY a ON users (email);",
    "CREATE TABLE a (id int); CREATE INDEX b ON a (id);",
    "ALTER TABLE users ADD CONSTRAINT c CHECK (id IS NOT NULL) NOT VALID;",
    "ALTER TABLE users VALIDATE CONSTRAINT c;",
    "ALTER TABLE users ADD COLUMN n int NOT NULL DEFAULT 0;",
    "ALTER TABLE users ADD COLUMN n int;",
    "-- DROP TABLE users;\nSELECT 'DROP TABLE users;';",
    "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$;",
    "-- session-rollout: allow destroys (the table is ours and empty)\nDROP TABLE scratch;",
]


@pytest.mark.parametrize(("rule", "text"), BAD)
def test_lint_reports_violations(rule: str, text: str) -> None:
    """With file and line."""
    findings = lint((Step(1, "x", "SELECT 1;\n" + text, ""),))
    assert rule in {finding.rule for finding in findings}
    assert all(finding.file == "0001_x.up.sql" and finding.line >= 2 for finding in findings)


@pytest.mark.parametrize("text", GOOD)
def test_lint_accepts(text: str) -> None:
    """No false positives."""
    assert lint((Step(1, "x", text, ""),)) == []


def test_contract_may_destroy_and_expand_is_refused_before_a_connection(tmp_path: Path) -> None:
    """`change` decides."""
    drops = bundle(tmp_path, **{"0001_drop": "DROP TABLE users;"})
    with failing(FailureReason.LINT_FAILED, "0001_drop.up.sql line 1", "`DROP TABLE`", "`change: Contract`"):
        up(target("postgresql://127.0.0.1:1/none"), drops)
    assert lint(drops.steps, "Contract") == []


def test_shipped_bundles_are_clean() -> None:
    """The bundles of this project follow the rules."""
    assert lint(STEPS) == []
