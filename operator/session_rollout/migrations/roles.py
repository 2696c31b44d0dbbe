"""The two database roles of migrations, with the least rights: one defines tables and triggers, one moves rows.

`session-rollout-migrate roles` prints this SQL; an administrator reads it, runs it, and sets the passwords.
"""

from typing import Final

from session_rollout.migrations.copyspec import Copy
from session_rollout.migrations.database import quoted

DEFINER: Final = "session_rollout_ddl"
MOVER: Final = "session_rollout_dml"


def script(database: str, application: str, copies: tuple[Copy, ...], references: tuple[str, ...]) -> str:
    """SQL that creates both roles; running it again changes nothing."""
    both = f"{DEFINER}, {MOVER}"
    sources = "\n".join(_source(copy) for copy in copies)
    referenced = "\n".join(f"GRANT REFERENCES, SELECT ON {quoted(table)} TO {DEFINER};" for table in references)
    looked_up = "\n".join(f"GRANT SELECT ON {quoted(table)} TO {MOVER};" for table in references)
    return f"""-- Roles of session-rollout's migrations. Run as an administrator in database {database}; can be run again.
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{DEFINER}') THEN CREATE ROLE {DEFINER} LOGIN; END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{MOVER}') THEN CREATE ROLE {MOVER} LOGIN; END IF;
END $$;
GRANT CONNECT ON DATABASE {quoted(database)} TO {both};
GRANT pg_read_all_stats TO {both};                       -- to name who holds a lock, and to see replicas' lag

-- The one that defines: creates tables beside the application's, never drops or rewrites those.
GRANT CREATE ON DATABASE {quoted(database)} TO {DEFINER};            -- for the schemas session_rollout and session_rollout_snapshots
GRANT USAGE, CREATE ON SCHEMA public TO {DEFINER};
{referenced}

-- The one that moves rows.
GRANT USAGE ON SCHEMA public TO {MOVER};
{looked_up}
{sources}
CREATE SCHEMA IF NOT EXISTS session_rollout AUTHORIZATION {DEFINER};
CREATE SCHEMA IF NOT EXISTS session_rollout_snapshots AUTHORIZATION {DEFINER};
GRANT USAGE ON SCHEMA session_rollout, session_rollout_snapshots TO {MOVER};
ALTER DEFAULT PRIVILEGES FOR ROLE {DEFINER} IN SCHEMA session_rollout, session_rollout_snapshots, public
  GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {MOVER};

-- The application reads and writes the tables that migrations create.
ALTER DEFAULT PRIVILEGES FOR ROLE {DEFINER} IN SCHEMA public
  GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {quoted(application)};
"""


def _source(copy: Copy) -> str:
    source = quoted(copy.source)
    return (
        f"GRANT SELECT, INSERT, UPDATE ON {source} TO {MOVER};   -- mark rows as moved, keep one still while it is, restore\n"
        f"GRANT SELECT, TRIGGER ON {source} TO {DEFINER};"
    )
