"""Credentials are never shown, passwords with special characters work, and two roles with least privilege suffice.

The Job's arguments, environment, log, status and Events are searched in tests/integration/test_migrations.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from lab.lab import ROOT, until
from lab.sessions import BUNDLE, SCHEMA, People, difference, fill, run, value
from session_rollout.migrations import roles
from session_rollout.migrations.copy import spec
from session_rollout.migrations.schema import bundle

CANARY = "kanarie-vogel-9781"
ODD = "a b'c\"d\\e/f@g:h?i#j%k&l=m;n$o`p{q}r[s]t!u~v^w*x(y)z<0>|,.ü€" + CANARY
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}


def migrate(tmp_path: Path, secret: str, *argv: str, job: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the program with the connection string in a file, as a Job does or (`job=False`) in a terminal."""
    (tmp_path / "dsn").write_text(secret)
    command = [sys.executable, "-m", "session_rollout.migrations", *argv, f"--dsn-file={tmp_path / 'dsn'}"]
    command += [f"--termination-log={tmp_path / 'log'}", "--lock-deadline=1s"] if job else []
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def everything(tmp_path: Path, done: subprocess.CompletedProcess[str]) -> str:
    """Everything that the program has written."""
    log = tmp_path / "log"
    return done.stdout + done.stderr + (log.read_text() if log.exists() else "")


BROKEN = [
    (f"postgresql://user:{CANARY}@127.0.0.1:1/db", 75, "DeadlineExceeded", "gave up after 1 s: database error: connection"),
    (f"postgresql://user:{CANARY}%@127.0.0.1:1/db", 1, "InvalidConnectionString", "the connection string cannot be read"),
    (f"postgresql://user:{CANARY}@[::1/db", 1, "InvalidConnectionString", "the connection string cannot be read"),
    (f"host=127.0.0.1 port=1 password='{CANARY} user=x", 1, "InvalidConnectionString", "the connection string cannot be read"),
    (f"nonsense {CANARY}", 1, "InvalidConnectionString", "the connection string cannot be read"),
]


@pytest.mark.parametrize(("secret", "code", "reason", "words"), BROKEN)
def test_failures_are_reported_without_the_password(tmp_path: Path, secret: str, code: int, reason: str, words: str) -> None:
    """A message and a reason, no secret, no traceback; the exit code shows whether another attempt can help."""
    done = migrate(tmp_path, secret, "up", f"--bundle={SCHEMA}")
    assert done.returncode == code
    progress = json.loads((tmp_path / "log").read_text())
    assert words in progress["message"]
    assert progress["reason"] == reason
    assert CANARY not in everything(tmp_path, done)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("form", ["url", "conninfo"])
def test_password_with_special_characters_works(dsn: str, tmp_path: Path, form: str) -> None:
    """In both forms of a connection string, against a server that checks it; a wrong password is reported without showing it."""
    role = f"odd_{form}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}").format(sql.Identifier(role), sql.Literal(ODD)))
    authentication = PasswordAuthentication(dsn, role)
    try:
        port, name = dsn.rsplit(":", 1)[1].split("/")
        url = f"postgresql://{role}:{quote(ODD, safe='')}@127.0.0.1:{port}/{name}"
        secret = url if form == "url" else make_conninfo(host="127.0.0.1", port=port, dbname=name, user=role, password=ODD)
        done = migrate(tmp_path, secret, "up", f"--bundle={SCHEMA}")
        assert done.returncode == 0, done.stderr
        assert CANARY not in everything(tmp_path, done)
        wrong = migrate(tmp_path, secret.replace(CANARY, CANARY + "x"), "status", f"--bundle={SCHEMA}")
        assert wrong.returncode == 1
        assert "password authentication failed for user" in wrong.stderr
        assert CANARY not in everything(tmp_path, wrong)
    finally:
        authentication.stop()


class PasswordAuthentication:
    """Makes the server check the password of one role."""

    def __init__(self, dsn: str, role: str) -> None:
        self.dsn, self.path = dsn, Path(value(dsn, "SHOW hba_file"))
        self.before = self.path.read_text()
        self.path.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n" + self.before)
        loaded = "SELECT pg_conf_load_time()"  # of the server as a new connection inherits it
        before = value(dsn, loaded)
        run(dsn, "SELECT pg_reload_conf()")
        until(lambda: value(dsn, loaded) > before, 10, "the server having read its rules again")

    def stop(self) -> None:
        """Restore the configuration."""
        self.path.write_text(self.before)
        run(self.dsn, "SELECT pg_reload_conf()")


def test_process_shows_no_secret_while_it_runs(dsn: str, tmp_path: Path) -> None:
    """Neither in its arguments nor in its environment."""
    (tmp_path / "dsn").write_text(dsn.replace("postgres@", f"postgres:{CANARY}@"))
    (tmp_path / "0001_slow.up.sql").write_text("SELECT pg_sleep(600);")
    (tmp_path / "0001_slow.down.sql").write_text("")
    command = [
        sys.executable,
        "-m",
        "session_rollout.migrations",
        "up",
        f"--directory={tmp_path}",
        f"--dsn-file={tmp_path / 'dsn'}",
    ]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    try:
        query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"
        until(lambda: value(dsn, query), 60, "the step running")
        shown = b"".join(Path(f"/proc/{process.pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
        assert CANARY.encode() not in shown
    finally:
        process.kill()
        process.wait()


def test_two_roles_with_least_privilege_suffice(dsn: str, tmp_path: Path) -> None:
    """With the printed script alone: schema, copy under load, backup, restore, finish; other statements are denied."""
    database = dsn.rsplit("/", 1)[1]
    run(dsn, "DROP ROLE IF EXISTS web", "CREATE ROLE web LOGIN")
    fill(dsn, 3_000)
    run(dsn, "GRANT ALL ON users, user_sessions TO web")
    script = roles.script(database, "web", (spec.load(bundle.shipped(BUNDLE)),), ("users",))
    run(dsn, script, script)
    definer, mover, web = (dsn.replace("postgres@", f"{role}@") for role in (roles.DEFINER, roles.MOVER, "web"))
    (tmp_path / "definer").write_text(definer)
    two = f"--definer-dsn-file={tmp_path / 'definer'}"
    with People(web, 3_000, pause=0.005):
        for argv in (
            ("up", f"--bundle={SCHEMA}"),
            ("up", f"--bundle={BUNDLE}", "--copy-duty-cycle=1"),
            ("backup", f"--bundle={BUNDLE}", "--label=x", "--copy-duty-cycle=1"),
            ("verify", f"--bundle={BUNDLE}"),
        ):
            done = migrate(tmp_path, mover, *argv, two)
            assert done.returncode == 0, (argv, done.stderr)
    assert difference(dsn) == 0
    for command in ("restore", "retry", "repair", "status", "finish", "prune"):
        done = migrate(tmp_path, mover, command, f"--bundle={BUNDLE}", two)
        assert done.returncode == 0, (command, done.stderr)
    run(web, "INSERT INTO session_feature_flags (feature_name, enabled) VALUES ('offlineMode', true)")
    for forbidden in ("DELETE FROM user_sessions", "DROP TABLE session_analytics", "DELETE FROM users"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run(mover, forbidden)
    for forbidden in ("DELETE FROM user_sessions", "DROP TABLE user_sessions", "UPDATE users SET email = ''"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run(definer, forbidden)


def test_exact_restore_is_refused_while_it_would_lose_newer_rows(dsn: str, tmp_path: Path) -> None:
    """With the number of rows; done with --lose-newer."""
    fill(dsn, 200)
    bundled = f"--bundle={BUNDLE}"
    for argv in (("up", f"--bundle={SCHEMA}"), ("up", bundled), ("backup", bundled, "--label=x")):
        assert migrate(tmp_path, dsn, *argv).returncode == 0
    run(dsn, "UPDATE user_sessions SET form_data = '{\"new\": 1}', last_activity = now() WHERE id = md5('session1')::uuid")
    refused = migrate(tmp_path, dsn, "restore", bundled, "--exact")
    assert refused.returncode == 1
    assert "--lose-newer" in refused.stderr
    assert value(dsn, "SELECT count(*) FROM user_sessions WHERE form_data ? 'new'") == 1
    done = migrate(tmp_path, dsn, "restore", bundled, "--exact", "--lose-newer")
    assert done.returncode == 0, done.stderr
    assert value(dsn, "SELECT count(*) FROM user_sessions WHERE form_data ? 'new'") == 0
    assert difference(dsn) == 0


def test_missing_rights_are_named_with_the_grant_that_helps(dsn: str, tmp_path: Path) -> None:
    """Before anything is changed."""
    fill(dsn, 10)
    database = dsn.rsplit("/", 1)[1]
    run(dsn, "DROP ROLE IF EXISTS web", "CREATE ROLE web LOGIN")
    run(dsn, roles.script(database, "web", (spec.load(bundle.shipped(BUNDLE)),), ("users",)))
    (tmp_path / "definer").write_text(dsn.replace("postgres@", f"{roles.DEFINER}@"))
    two, mover = f"--definer-dsn-file={tmp_path / 'definer'}", dsn.replace("postgres@", f"{roles.MOVER}@")
    assert migrate(tmp_path, mover, "up", f"--bundle={SCHEMA}", two).returncode == 0
    run(
        dsn,
        f"REVOKE UPDATE ON user_sessions FROM {roles.MOVER}",
        f"REVOKE DELETE ON enhanced_user_sessions FROM {roles.MOVER}",
        f"REVOKE TRIGGER ON user_sessions FROM {roles.DEFINER}",
    )
    done = migrate(tmp_path, mover, "up", f"--bundle={BUNDLE}", two)
    assert done.returncode == 1
    for words in (
        f"GRANT DELETE ON enhanced_user_sessions TO {roles.MOVER}",
        f"GRANT UPDATE (migrated, migrated_at) ON user_sessions TO {roles.MOVER}",
        f"GRANT TRIGGER ON user_sessions TO {roles.DEFINER}",
    ):
        assert words in done.stderr


def test_a_terminal_gets_sentences_and_programs_get_json(dsn: str, tmp_path: Path) -> None:
    """Progress goes to standard error as sentences and is not repeated; standard output has the result alone."""
    fill(dsn, 2_000)
    applied = migrate(tmp_path, dsn, "up", f"--bundle={SCHEMA}", job=False)
    assert "0001_session_tables.up.sql" in applied.stderr.splitlines()[0]
    assert "{" not in applied.stderr
    moved = migrate(tmp_path, dsn, "up", f"--bundle={BUNDLE}", "--copy-duty-cycle=1", job=False)
    assert "{" not in moved.stderr
    assert len(moved.stdout.splitlines()) == 1
    status = migrate(tmp_path, dsn, "status", f"--bundle={BUNDLE}", job=False)
    assert (json.loads(status.stdout)["state"], status.stderr) == ("Following", "")
    failed = migrate(tmp_path, dsn, "restore", f"--bundle={BUNDLE}", "--label=none", job=False)
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1
