"""Implementations of `session_rollout.ports` with client libraries, and `kubectl`, which the command line uses.

`core`, `controller`, `records` and `simulation` do not import client libraries. Outside of this package, `handlers` and `main`
import Kopf, `migrations` imports psycopg, and `cli` imports the flagd evaluator of OpenFeature.
"""
