-- NOT VALID: the tables are new, and the lock on `users` is held for no scan.
ALTER TABLE enhanced_user_sessions ADD CONSTRAINT enhanced_user_sessions_user_id_fkey
  FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE NOT VALID;
ALTER TABLE session_analytics ADD CONSTRAINT session_analytics_user_id_fkey
  FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE NOT VALID;
ALTER TABLE session_feature_flags ADD CONSTRAINT session_feature_flags_user_id_fkey
  FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE NOT VALID;
