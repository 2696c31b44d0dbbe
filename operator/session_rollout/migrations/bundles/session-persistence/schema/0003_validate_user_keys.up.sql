-- Needs only ROW SHARE on `users`.
ALTER TABLE enhanced_user_sessions VALIDATE CONSTRAINT enhanced_user_sessions_user_id_fkey;
ALTER TABLE session_analytics VALIDATE CONSTRAINT session_analytics_user_id_fkey;
ALTER TABLE session_feature_flags VALIDATE CONSTRAINT session_feature_flags_user_id_fkey;
