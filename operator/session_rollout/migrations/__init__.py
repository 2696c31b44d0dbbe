"""What runs inside a migration Job: psycopg alone, no Kubernetes. Exactly-once lives in the database's own ledger."""
