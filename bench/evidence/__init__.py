"""Simulations of the tests in `session_rollout.core.statistics`: how often they are wrong, and what they find after how long."""
