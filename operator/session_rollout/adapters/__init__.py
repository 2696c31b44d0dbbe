"""The only modules that import client libraries; each implements a port of `session_rollout.ports`."""
