-- What the application keeps of a session, from `user_sessions`. Columns without a default are added without a rewrite.
ALTER TABLE enhanced_user_sessions
  ADD COLUMN preferences jsonb,
  ADD COLUMN form_data jsonb,
  ADD COLUMN navigation_state jsonb;
