"""SessionRollout: progressive rollout of feature flags and their migrations on Kubernetes."""

__version__ = "0.1.0"
