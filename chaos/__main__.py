"""`make chaos-migrations`: hundreds of random faults in one run; nothing is lost, nothing is done twice.

Each round is a fresh database under the application's load and a SessionRollout whose migrations create the schema and move
the session rows, in real Jobs of the real operator. Faults hit it until it is through; then everything is compared.

    make chaos-migrations FAULTS=500 SEED=7
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from typing import Any

import psycopg
from rich.console import Console

from chaos.faults import Faults
from lab.kube import Object
from lab.lab import Lab, ended_by_signals
from lab.sessions import BUNDLE, SCHEMA, People, database, difference, fill, value
from session_rollout.migrations.schema.bundle import load, shipped

ROWS = 25_000
ROUND_SECONDS = 240
STEPS = len(load(shipped(SCHEMA)))
PROFILE = {
    "image": "session-rollout:lab",
    "lockTimeout": "300ms",
    "lockDeadline": "2m",
    "retries": 50,
    "pauseOnReadLatency": "2s",
    "copyDutyCycle": 0.3,
}
CATALOG = """
SELECT t FROM (SELECT format('%s.%s %s %s %s', table_name, column_name, data_type, is_nullable, column_default) t
  FROM information_schema.columns WHERE table_schema = 'public' UNION ALL
  SELECT indexdef || CASE WHEN i.indisvalid THEN '' ELSE ' INVALID' END FROM pg_indexes x
  JOIN pg_index i ON i.indexrelid = format('%I.%I', x.schemaname, x.indexname)::regclass WHERE schemaname = 'public' UNION ALL
  SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace) x ORDER BY t"""


def rollout(name: str) -> Object:
    """One phase with both migrations before it, and a long hold."""
    phase = {
        "name": "one",
        "features": ["offlineMode"],
        "migrations": {"before": ["tables", "sessions"]},
        "steps": [{"percent": 5, "hold": "1h"}, {"percent": 100, "hold": "1h"}],
    }
    spec = {
        "flagSet": name,
        "checkInterval": "1s",
        "database": {"secretKeyRef": {"name": "database"}},
        "features": [{"name": "offlineMode"}],
        "phases": [phase],
        "migrations": [{"name": "tables", "bundle": SCHEMA}, {"name": "sessions", "bundle": BUNDLE, "change": "Migrate"}],
    }
    return {"apiVersion": "sessionrollout.dev/v1alpha1", "kind": "SessionRollout", "metadata": {"name": name}, "spec": spec}


def catalog(dsn: str) -> list[Any]:
    """The schema as text."""
    with psycopg.connect(dsn) as connection:
        return [row[0] for row in connection.execute(CATALOG).fetchall()]


class Round:
    """One database and one rollout, from nothing to moved."""

    def __init__(self, lab: Lab, number: int, seed: int, console: Console) -> None:
        self.lab, self.number, self.console = lab, number, console
        self.name = f"chaos-{number}"
        self.dice = random.Random(seed * 1000 + number)
        self.problems: list[str] = []

    def run(self, most: int, reference: list[Any] | None) -> tuple[Counter[str], list[Any]]:
        """At most so many faults; what they were, and the catalog afterwards."""
        assert self.lab.postgres is not None
        begun = time.monotonic()
        with database(self.lab.postgres.url, f"chaos_{self.number}") as dsn:
            fill(dsn, ROWS)
            self.lab.namespace(self.name)
            self.lab.database_secret("database", dsn, self.name)
            faults = Faults(self.lab, self.name, dsn, self.dice)
            faults.prepare()
            with People(dsn, ROWS, seed=self.number) as people:
                self.lab.apply(rollout(self.name), self.name)
                self._strike(faults, most)
                self._wait_until_moved()
                faults.calm()
                self._prove(dsn, people)
            after = catalog(dsn)
            self._check(reference is None or after == reference, "the schema is not that of the first round")
            self.lab.kubectl("delete", "sro", self.name, "-n", self.name, "--wait=true", "--timeout=30s")
        took, count = time.monotonic() - begun, sum(faults.done.values())
        self.console.print(f"round {self.number}: {count} faults, {took:.0f} s, {'ok' if not self.problems else self.problems}")
        return faults.done, after

    def _strike(self, faults: Faults, most: int) -> None:
        deadline = time.monotonic() + ROUND_SECONDS
        while sum(faults.done.values()) < most and not self._moved() and time.monotonic() < deadline:
            faults.inject()
            time.sleep(self.dice.uniform(0.02, 0.5))

    def _status(self) -> Object:
        return dict(self.lab.rollout(self.name, self.name).get("status", {}))

    def _moved(self) -> bool:
        status = self._status()
        for migration in status.get("migrations", []):
            if migration["state"] == "Failed":
                self._check(False, f"{migration['name']} failed: {migration.get('message')}")
                return True
        return bool(status.get("current", {}).get("step"))

    def _wait_until_moved(self) -> None:
        deadline = time.monotonic() + ROUND_SECONDS
        while not self._moved():
            if time.monotonic() > deadline:
                self._check(False, f"not moved within {ROUND_SECONDS} s: {self._status().get('decision')}")
                return
            time.sleep(0.2)

    def _prove(self, dsn: str, people: People) -> None:
        """Each step once, all rows copied, both sides equal while users keep writing."""
        with psycopg.connect(dsn) as connection:
            query = "SELECT bundle || ' ' || what, count(*) FROM session_rollout.history WHERE what LIKE 'up %' GROUP BY 1"
            steps: dict[str, int] = dict(connection.execute(query).fetchall())
        self._check(len(steps) == STEPS and set(steps.values()) == {1}, f"steps and how often each took effect: {steps}")
        applied = value(dsn, "SELECT count(*) FROM session_rollout.schema_migrations WHERE state = 'applied'")
        self._check(applied == STEPS, f"{applied} steps in the ledger")
        invalid = value(dsn, "SELECT count(*) FROM pg_index WHERE NOT indisvalid")
        self._check(invalid == 0, f"{invalid} invalid indexes")
        # A change that the trigger could not apply at once is queued; a user would request another attempt.
        waiting = value(dsn, "SELECT count(*) FROM session_rollout.changes")
        differing = difference(dsn)
        self._check(differing <= 2 * waiting, f"{differing} rows differ, {waiting} changes wait")
        doubled = value(dsn, "SELECT count(*) - count(DISTINCT session_id) FROM enhanced_user_sessions")
        self._check(doubled == 0, f"{doubled} sessions doubled")
        aside = value(dsn, "SELECT count(*) FROM session_rollout.quarantine")
        self._check(aside == 0, f"{aside} rows in quarantine")
        self._check(sum(people.done.values()) > 0, "no user was writing")

    def _check(self, holds: bool, text: str) -> None:
        if not holds:
            self.problems.append(text)


def main() -> None:
    """Entry point; exit 1 when anything was lost or done twice."""
    parser = argparse.ArgumentParser(prog="make chaos-migrations")
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--round", type=int, default=60, help="most faults of one round")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    console, total, problems = Console(highlight=False), Counter[str](), list[str]()
    console.print(f"seed {options.seed}")
    with ended_by_signals(), Lab(metrics=False) as lab:
        lab.install()
        lab.start_operator(profiles={"default": PROFILE})
        reference, number = None, 0
        while sum(total.values()) < options.faults:
            number += 1
            current = Round(lab, number, options.seed, console)
            done, after = current.run(min(options.round, options.faults - sum(total.values())), reference)
            reference = reference or after
            total += done
            problems += current.problems
    console.print(
        f"{sum(total.values())} faults in {number} rounds of {ROWS:,} rows; {len(problems)} problems (seed {options.seed})"
    )
    print(json.dumps({"faults": dict(total), "rounds": number, "problems": problems, "seed": options.seed}))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
