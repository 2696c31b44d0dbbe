"""What runs inside a migration Job: psycopg alone, no Kubernetes. The ledger in the database makes each step take effect once.

`schema/` applies SQL files, `copy/` copies rows; `connection`, `retry`, `ledger`, `progress` and `roles` serve both.
"""
