"""The page about `session-rollout-migrate`, written from argparse's own definitions."""

import argparse
from collections.abc import Iterator, Sequence
from typing import Final

from docs.tables import cell
from session_rollout.migrations.__main__ import COMMANDS, FAILED, INTERRUPTED, parser

USAGE: Final = 2  # argparse's own exit code
INTRODUCTION: Final = """
`session-rollout-migrate` applies and undoes schema migrations, and copies rows. The operator's Jobs run it; you can run it from the same
image or from the Python package. It reads the connection string from a file, never from an argument or the environment. It reads these
[environment variables](environment.md#session-rollout-migrate).

A directory or bundle contains either SQL files or one `copy.yaml`. `up`, `down`, `status` and `lint` accept both. `plan` requires SQL
files; all other commands require `copy.yaml`. `lint` and `roles` need no database.

## Run it from the image

The following Pod prints the state of a migration whose files are in the ConfigMap `shop-sql`. Use the image of the operator.

```yaml
apiVersion: v1
kind: Pod
metadata: {name: migrate-status, namespace: shop}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  volumes:
  - {name: dsn, secret: {secretName: shop-db, items: [{key: url, path: url}]}}
  - {name: sql, configMap: {name: shop-sql}}
  containers:
  - name: migrate
    image: registry.example/session-rollout:VERSION
    command: [session-rollout-migrate]
    args: [status, --directory=/sql, --name=shop/checkout/orders, --dsn-file=/dsn/url]
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    volumeMounts:
    - {name: dsn, mountPath: /dsn, readOnly: true}
    - {name: sql, mountPath: /sql, readOnly: true}
```

`lint` and `roles` need only your files:

```sh
docker run --rm --volume "$PWD/sql:/sql:ro" --entrypoint session-rollout-migrate registry.example/session-rollout:VERSION lint --directory /sql
```

## Names in the ledger

The ledger identifies a migration by a name, not by its content:

| source | name in the ledger |
|---|---|
| `bundle` of a rollout, or `--bundle` | path of the bundle, such as `session-persistence/schema` |
| `configMapRef` of a rollout | `NAMESPACE/ROLLOUT/MIGRATION`, such as `shop/checkout/orders` |
| `--directory` without `--name` | name of the directory |

- If another rollout refers to the same ConfigMap, the name is different, and the SQL steps are applied again.
- If you run a migration of a rollout manually with `--directory`, set `--name` to the name above. Otherwise a separate ledger entry is
  created, and the SQL steps are applied again.
"""
COMMON: Final = "All commands accept these options. Exactly one of `--bundle` and `--directory` is required."
AFTER_CODES: Final = """
Kubernetes retries a Pod that ends with code {interrupted}, and the next attempt resumes where the last one stopped.
"""


def migrate() -> str:
    """Every command with its options, and the exit codes."""
    program = parser()
    commands = _commands(program)
    common = [action for action in _options(commands["status"]) if all(_has(command, action) for command in commands.values())]
    shared = {name for action in common for name in action.option_strings}
    codes = {
        0: "Success.",
        FAILED: "The migration failed and requires manual intervention, or `verify` found a difference.",
        USAGE: "Wrong arguments.",
        INTERRUPTED: "Interrupted, or the database or a lock was unavailable for longer than `--lock-deadline`. Run the command again to resume.",
    }
    parts = ["# session-rollout-migrate", INTRODUCTION.strip(), "## Exit codes", "| code | meaning |\n|---|---|"]
    parts[-1] += "".join(f"\n| {code} | {text} |" for code, text in codes.items())
    parts += [AFTER_CODES.format(interrupted=INTERRUPTED).strip(), "## Commands", "| command | effect |\n|---|---|"]
    parts[-1] += "".join(f"\n| `{name}` | {cell(text)} |" for name, text in COMMANDS.items())
    parts += ["## Common options", COMMON, _table(common)]
    for name, command in commands.items():
        if own := [action for action in _options(command) if not shared & set(action.option_strings)]:
            parts += [f"## Options of {name}", _table(own)]
    return "\n\n".join(parts) + "\n"


def _commands(program: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    [subparsers] = [action for action in program._actions if isinstance(action, argparse._SubParsersAction)]  # noqa: SLF001
    return dict(subparsers.choices)


def _options(command: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The options that the help shows, without the help itself."""
    for action in command._actions:  # noqa: SLF001 - there is no public attribute
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction):  # noqa: SLF001
            yield action


def _has(command: argparse.ArgumentParser, action: argparse.Action) -> bool:
    return any(other.option_strings == action.option_strings for other in _options(command))


def _table(actions: Sequence[argparse.Action]) -> str:
    return "| option | meaning |\n|---|---|" + "".join(f"\n{_row(action)}" for action in actions)


def _row(action: argparse.Action) -> str:
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    value = "" if action.nargs == 0 else f" `{_value(action)}`"
    text = (action.help or "") % {"default": action.default}
    return f"| {names}{cell(value)} | {'Required. ' if action.required else ''}{cell(text)} |"


def _value(action: argparse.Action) -> str:
    if action.choices is not None:
        return "|".join(map(str, action.choices))
    return str(action.metavar or action.dest.upper())
