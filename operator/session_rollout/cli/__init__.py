"""`kubectl sessionrollout`, the plugin of kubectl. All access to the cluster goes through kubectl and the API server.

Commands, one module for each group:
    status.py         get, status
    wait.py           wait, and how `status --watch` follows a rollout
    history.py        history, events
    explain.py        explain
    actions.py        approve, promote, pause, resume, abort, rollback, retry, adopt, reset, restart
    flags.py          flags status, who, verify, stale, enable, rollout, emergency-disable, emergency-enable
    migrations.py     migrations status, plan, up, down
    data.py           data status, migrate, retry, repair, backup, restore, verify
    checks.py         verify, diagnose, check-errors
    report.py         report
    manifests.py      init, diff
    validate.py       validate
    rehearse.py       rehearse
    backtest.py       backtest
    power.py          power

Shared by commands:
    app.py            the list of commands; `__main__.py` runs it
    command.py        flags of kubectl, exit codes, errors
    common.py         arguments, reading a rollout, times
    action_client.py  creating an action and waiting for its response
    operator_lease.py whether the operator runs
    past.py           what a Prometheus server has recorded
    running_step.py   the running step: what it waits for and what follows
    flag_document.py  the published flag document and the rule that decides a flag
    migration_records.py  migrations of a rollout as a table
    stale.py          features whose flag can be removed from the code
    admission.py      validation as the API server does it; warnings.py: what it accepts but should not be applied
    yaml_source.py    YAML with line and column of each field
    scenario.py, lock_preview.py   input and locks of a rehearsal
    completion.py     completion of kubectl
    render/           trees, timelines and HTML pages
"""
