"""SessionRollout: a Kubernetes operator for progressive feature-flag rollouts with coordinated database migrations."""

__version__ = "0.1.0"
