DROP TABLE session_feature_flags;
DROP TABLE session_analytics;
DROP TABLE enhanced_user_sessions;
