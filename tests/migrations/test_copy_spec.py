"""copy.yaml and preflight: what is refused before anything is changed, and expressions with special characters."""

from dataclasses import replace
from pathlib import Path

import pytest

from lab.sessions import fill, run, value
from migrations.copies import COPY, FAST, QUICK, quarantine, target
from migrations.failures import failing
from session_rollout.api.migration_enums import FailureReason
from session_rollout.errors import BundleError
from session_rollout.migrations.connection import RunContext
from session_rollout.migrations.copy import runner as copy_runner
from session_rollout.migrations.copy import spec, trigger
from session_rollout.migrations.schema import bundle


def test_preflight_refuses_what_would_fail_later(dsn: str) -> None:
    """Missing tables, missing rights with the GRANT that adds them, too little space, a key that is not unique."""
    fill(dsn, 10)
    without_tables = RunContext(dsn, limits=QUICK)
    with failing(FailureReason.MISSING_TABLE, "enhanced_user_sessions"):
        copy_runner.up(without_tables, FAST)
    context = target(dsn)
    with failing(FailureReason.PREFLIGHT_FAILED, "0 MiB"):
        copy_runner.up(context, replace(FAST, free_space_query="SELECT 1000"))
    with failing(FailureReason.INVALID_KEY, "`key`", "form_data", "user_sessions"):
        copy_runner.up(context, replace(FAST, spec=COPY.model_copy(update={"key": "form_data"})))
    run(dsn, "DROP ROLE IF EXISTS weak", "CREATE ROLE weak LOGIN", "GRANT SELECT ON user_sessions TO weak")
    weak = RunContext(dsn.replace("postgres@", "weak@"), definer=dsn, limits=QUICK)
    with failing(FailureReason.DATABASE_ERROR, "permission denied"):
        copy_runner.up(weak, FAST)


def test_a_changed_copy_yaml_is_refused(dsn: str) -> None:
    """The copy that was started with the other one must be undone first."""
    fill(dsn, 10)
    context = target(dsn)
    copy_runner.up(context, FAST)
    other = COPY.model_copy(update={"where": "s.migrated IS NOT TRUE"})
    with failing(FailureReason.BUNDLE_CHANGED, "copy.yaml", "`down`"):
        copy_runner.up(context, replace(FAST, spec=other))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("source: [", "copy.yaml cannot be read"),
        ("source: user_sessions", r"copy.yaml: `target` is .*Field required"),
        ("{source: 'a; DROP', target: b, key: id, columns: {x: '1'}, ours: 'true'}", "copy.yaml: `source` is 'a; DROP'"),
        ("{source: a, target: b, key: id, columns: {}, ours: 'true'}", "copy.yaml: `columns` is"),
        ("{source: a, target: b, key: id, columns: {x: '1'}, ours: 'true', other: 1}", "copy.yaml: `other` is"),
    ],
)
def test_invalid_copy_yaml_is_refused_with_the_field(tmp_path: Path, text: str, words: str) -> None:
    """Before a connection is opened."""
    (tmp_path / "copy.yaml").write_text(text)
    with pytest.raises(BundleError, match=words):
        spec.load(tmp_path)


def test_a_bundle_has_either_sql_files_or_copy_yaml(tmp_path: Path) -> None:
    """Both in one directory are an error."""
    (tmp_path / "copy.yaml").write_text("")
    (tmp_path / "0001_x.up.sql").write_text("")
    with failing(FailureReason.INVALID_BUNDLE, "copy.yaml", "SQL"):
        bundle.is_copy(tmp_path)


def test_percent_signs_and_quotes_in_expressions_are_kept(dsn: str) -> None:
    """In statements with parameters and in the trigger."""
    fill(dsn, 20)
    odd = {**COPY.columns, "state_version": "CASE WHEN s.session_id LIKE '%%' THEN '100%' ELSE 'o''k' END"}
    checks = (spec.Check(when="s.session_id LIKE 'bad%'", reason="it's 100% bad"),)
    job = replace(FAST, spec=COPY.model_copy(update={"columns": odd, "checks": checks}))
    copy_runner.up(target(dsn), job)
    run(dsn, "UPDATE user_sessions SET session_id = 'bad one' WHERE id = md5('session1')::uuid")
    assert value(dsn, "SELECT DISTINCT state_version FROM enhanced_user_sessions") == "100%"
    assert list(quarantine(dsn).values()) == ["it's 100% bad"]
    assert trigger.trigger_name("ns/rollout/my-copy") == "session_rollout_ns_rollout_my_copy"
