-- The seed's three tables and five indexes. Foreign keys come in a step of their own, so that the one statement that
-- needs a lock on `users` is alone in its transaction.
CREATE TABLE enhanced_user_sessions (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id uuid,
  session_id varchar(255) NOT NULL,
  last_activity timestamptz DEFAULT now(),
  migration_source varchar(50),
  migration_timestamp timestamptz,
  enhanced_features_enabled boolean DEFAULT true,
  state_version varchar(10) DEFAULT '2.0',
  created_at timestamptz DEFAULT now(),
  updated_at timestamptz DEFAULT now()
);

CREATE TABLE session_analytics (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id uuid,
  session_id varchar(255),
  event_type varchar(100) NOT NULL,
  event_data jsonb,
  timestamp timestamptz DEFAULT now(),
  user_agent text,
  ip_address inet
);

CREATE TABLE session_feature_flags (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id uuid,
  feature_name varchar(100) NOT NULL,
  enabled boolean NOT NULL,
  reason text,
  expires_at timestamptz,
  created_at timestamptz DEFAULT now()
);

CREATE INDEX idx_enhanced_sessions_user_id ON enhanced_user_sessions (user_id);
CREATE INDEX idx_enhanced_sessions_session_id ON enhanced_user_sessions (session_id);
CREATE INDEX idx_session_analytics_user_id ON session_analytics (user_id);
CREATE INDEX idx_session_analytics_timestamp ON session_analytics (timestamp);
CREATE INDEX idx_feature_flags_user_feature ON session_feature_flags (user_id, feature_name);
