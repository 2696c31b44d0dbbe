ALTER TABLE enhanced_user_sessions
  DROP COLUMN navigation_state,
  DROP COLUMN form_data,
  DROP COLUMN preferences;
