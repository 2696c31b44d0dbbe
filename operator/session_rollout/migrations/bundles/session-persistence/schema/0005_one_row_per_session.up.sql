-- A session that was moved is there once. Rows that the application writes itself (no source) are not restricted.
CREATE UNIQUE INDEX CONCURRENTLY enhanced_user_sessions_moved_once
  ON enhanced_user_sessions (session_id) WHERE migration_source IS NOT NULL;
