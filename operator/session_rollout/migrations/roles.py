"""SQL that creates the two least-privilege database roles: the definer owns tables and triggers, the mover copies rows.

`session-rollout-migrate roles` prints it; an administrator reviews it, runs it, and sets the passwords.
"""

from typing import Final

from session_rollout.migrations.connection import quote_name
from session_rollout.migrations.copy.spec import CopySpec

DEFINER: Final = "session_rollout_ddl"
MOVER: Final = "session_rollout_dml"


def script(database: str, application: str, copies: tuple[CopySpec, ...], references: tuple[str, ...]) -> str:
    """The SQL: `application` is the role of the application, `references` are tables that new ones refer to. It is idempotent."""
    both = f"{DEFINER}, {MOVER}"
    sources = "\n".join(_source_grants(spec) for spec in copies)
    referenced = "\n".join(f"GRANT REFERENCES, SELECT ON {quote_name(table)} TO {DEFINER};" for table in references)
    looked_up = "\n".join(f"GRANT SELECT ON {quote_name(table)} TO {MOVER};" for table in references)
    return f"""-- Database roles for session-rollout migrations. Run as an administrator in database {database}; idempotent.
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{DEFINER}') THEN CREATE ROLE {DEFINER} LOGIN; END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{MOVER}') THEN CREATE ROLE {MOVER} LOGIN; END IF;
END $$;
GRANT CONNECT ON DATABASE {quote_name(database)} TO {both};
GRANT pg_read_all_stats TO {both};                       -- to name the session that holds a lock, and to read replica lag

-- The definer creates tables next to those of the application; it cannot drop or rewrite these.
GRANT CREATE ON DATABASE {quote_name(database)} TO {DEFINER};            -- for the schemas session_rollout and session_rollout_snapshots
GRANT USAGE, CREATE ON SCHEMA public TO {DEFINER};
{referenced}

-- The mover copies rows.
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
  GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {quote_name(application)};
ALTER DEFAULT PRIVILEGES FOR ROLE {DEFINER} IN SCHEMA public
  GRANT USAGE ON SEQUENCES TO {quote_name(application)};
"""


def _source_grants(spec: CopySpec) -> str:
    source = quote_name(spec.source)
    return (
        f"GRANT SELECT, INSERT, UPDATE ON {source} TO {MOVER};   -- to mark copied rows, to lock a row while it is copied, to restore\n"
        f"GRANT SELECT, TRIGGER ON {source} TO {DEFINER};"
    )
