"""`kubectl sessionrollout`: what people on call and platform teams type. Everything goes through the API server.

command.py     the shared flags of kubectl, exit codes, errors as one sentence
app.py         all commands
look.py        get, status, history, events, explain
act.py         approve, promote, pause, resume, abort, retry, rollback, restart
flags.py       flags status, enable, rollout, emergency-disable, restore, verify, who
database.py    migrations ..., sessions ...
examine.py     verify, diagnose, check-errors, report
write.py       init, validate, diff, rehearse: work on files, most without a cluster
tree.py        how a rollout is drawn
"""
