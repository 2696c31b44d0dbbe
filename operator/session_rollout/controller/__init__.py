"""The controller: *gather -> decide -> apply*, one reconciliation at a time for each rollout, and at most one status write.

`reconciler` is the loop. `gather`, `apply` and `deletion` are its parts, `state` is what it remembers. `inbox` and
`on_demand` handle actions. No client library is imported here: `ports` is the outside.
"""
