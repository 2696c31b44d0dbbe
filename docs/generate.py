"""`make docs` writes docs/reference from the code: API and configuration from their models, metrics, the stages from the core.

A test compares what is there with what this makes.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import yaml
from prometheus_client import Counter, Gauge, Histogram

from session_rollout.adapters import telemetry
from session_rollout.api.base import FEATURE_PATTERN, NAME_PATTERN
from session_rollout.api.enums import Stage
from session_rollout.api.quantities import BOUND_PATTERN, DURATION_PATTERN, PERCENT_PATTERN
from session_rollout.api.rollout import TIME_PATTERN, RolloutSpec
from session_rollout.cli.app import app
from session_rollout.cli.command import MEANINGS
from session_rollout.settings import Settings
from session_rollout.simulation.rehearsal import Fault, Scenario, rehearse

ROOT: Final = Path(__file__).parents[1]
REFERENCE: Final = ROOT / "docs" / "reference"
HEAD: Final = "<!-- Written by docs/generate.py: `make docs`. -->\n"
KINDS: Final = {"SessionRollout": "sessionrollouts", "SessionRolloutAction": "sessionrolloutactions"}
WORDS: Final = {
    DURATION_PATTERN: "duration",
    PERCENT_PATTERN: "percentage",
    BOUND_PATTERN: "bound",
    NAME_PATTERN: "name",
    FEATURE_PATTERN: "feature name",
    TIME_PATTERN: "time of day",
}
EXACT: Final = 2**53  # the largest integer that JSON keeps exactly: no limit that a reader would meet
# Lowest and highest of a limit in a schema, and of what.
LIMITS: Final = (("minimum", "maximum", ""), ("minLength", "maxLength", " characters"), ("minItems", "maxItems", " entries"))


# --- the API


def api() -> str:
    """Both kinds, one table for each object in them; and the rules that the API server checks."""
    parts = [
        f"{HEAD}# API reference\n",
        "Group `sessionrollout.dev`, version `v1alpha1`. `kubectl explain sessionrollout.spec` says the same. Fields in bold are required.\n",
        "- **duration**: a number and one unit of ms, s, m, h, d, w, such as `90m`",
        '- **percentage**: an integer from 0 to 100, or a string with one decimal, such as `"0.5"`',
        '- **bound**: a number as a string, with an optional unit, such as `"0.1%"`, `"500ms"`, `"10737418240"`',
        '- **time of day**: hours and minutes, such as `"09:00"`',
        "- **name**: at most 63 lower-case letters, digits and dashes; a **feature name**: at most 44 letters, digits, `_`, `.` and `-`\n",
    ]
    for kind, plural in KINDS.items():
        document = yaml.safe_load((ROOT / "crds" / f"{plural}.yaml").read_text())
        schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
        parts.append(f"## {kind}\n")
        parts += [part for half in ("spec", "status") for part in _object(half, schema[half], kind)]
    return "\n".join(parts)


def _object(path: str, schema: dict[str, Any], kind: str) -> Iterator[str]:
    if path:
        yield f"### {kind}: `{path}`\n"
    if path and (says := schema.get("description")):
        yield says + "\n"
    yield "| field | type | default | meaning |\n|---|---|---|---|"
    inner = []
    for name, field in schema["properties"].items():
        star = "**" if name in schema.get("required", []) else ""
        text = " ".join(part for part in (field.get("description", ""), _limits(field)) if part)
        default = f"`{json.dumps(field['default'])}`" if "default" in field and "properties" not in field else ""
        yield f"| {star}`{name}`{star} | {_type(field)} | {_cell(default)} | {_cell(text)} |"
        mark, content = _content(field)
        if "properties" in content:
            inner.append((f"{path}.{name}{mark}".removeprefix("."), content))
    yield ""
    rules = [rule["message"] for rule in schema.get("x-kubernetes-validations", [])]
    if rules:
        yield "Refused by the API server with:\n\n" + "\n".join(f"- {rule}" for rule in rules) + "\n"
    for where, content in inner:
        yield from _object(where, content, kind)


def _content(field: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What a list or a map holds, and how that is written behind its name; anything else holds itself."""
    if "items" in field:
        mark, content = _content(field["items"])
        return f"[]{mark}", content
    if isinstance(entries := field.get("additionalProperties"), dict):
        mark, content = _content(entries)
        return f".NAME{mark}", content
    return "", field


def _type(field: dict[str, Any]) -> str:
    if (word := WORDS.get(field.get("pattern", ""))) is not None:
        return word
    if "enum" in field:
        return " \\| ".join(f"`{one}`" for one in field["enum"])
    if "items" in field:
        return f"list of {_type(field['items'])}"
    if isinstance(entries := field.get("additionalProperties"), dict):
        return f"map to {_type(entries)}"
    if field.get("x-kubernetes-int-or-string"):
        return "integer or string"
    return str(field.get("format", field.get("type", "any")))


def _limits(field: dict[str, Any]) -> str:
    if field.get("pattern") in WORDS:
        return ""
    said = [f"matches `{field['pattern']}`"] if "pattern" in field else []
    for low, high, what in LIMITS:
        least, most = field.get(low, 0), field.get(high, EXACT)
        if most < EXACT:
            said.append(f"{least} to {most}{what}" if least else f"at most {most}{what}")
        elif least:
            said.append(f"at least {least}{what}")
    return f"({', '.join(said)})" if said else ""


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|").replace("\\\\|", "\\|")


# --- the configuration


def configuration() -> str:
    """The operator's file, one table for each section in it."""
    schema = Settings.model_json_schema(by_alias=True)
    parts = [
        f"{HEAD}# Configuration\n",
        "One YAML file, `--config FILE`, which only admins write; the chart makes it from `config` and `namespaces`. An unknown name or a",
        "value that is not allowed ends the operator at its start, with a sentence that says which.\n",
        *_object("", _resolved(schema, schema["$defs"]), "Configuration"),
    ]
    return "\n".join(parts)


def _resolved(node: Any, definitions: dict[str, Any]) -> Any:
    """A schema with its references in their places, and what may be null as what it is otherwise."""
    match node:
        case {"$ref": str(name), **beside}:
            return {**_resolved(definitions[name.rsplit("/", 1)[-1]], definitions), **beside}
        case {"anyOf": [dict(inner), {"type": "null"}], **beside}:
            kept = {key: value for key, value in beside.items() if (key, value) != ("default", None)}
            return _resolved({**inner, **kept}, definitions)
        case dict():
            return {key: _resolved(value, definitions) for key, value in node.items() if key != "$defs"}
        case list():
            return [_resolved(one, definitions) for one in node]
    return node


# --- metrics


def metrics() -> str:
    """What the operator exports."""
    lines = [
        f"{HEAD}# Metrics\n",
        "On port 8080 at `/metrics`. Series of a rollout go when it goes; a label never holds a generation, a user or a message.\n",
        "| metric | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    families = [one for name, one in sorted(vars(telemetry).items()) if isinstance(one, Counter | Gauge | Histogram)]
    for family in sorted(families, key=lambda one: str(one._name)):  # noqa: SLF001 - no public way to ask
        name = family._name + ("_total" if isinstance(family, Counter) else "")  # noqa: SLF001
        labels = ", ".join(f"`{label}`" for label in family._labelnames)  # noqa: SLF001
        lines.append(f"| `{name}` | {family._type} | {labels} | {family._documentation} |")  # noqa: SLF001
    lines.append("\n`process_*` and `python_*` are the Prometheus client's own.\n")
    return "\n".join(lines)


# --- stages


def stages() -> str:
    """The stages of a rollout and how one leads to another, found by playing the examples on a virtual clock."""
    seen: set[tuple[str, str]] = set()
    for path, end in _paths():
        seen |= {(a.value, b.value) for a, b in itertools.pairwise(path)}
        seen |= {(path[-1].value, end)} if end else set()
    edges = sorted(seen, key=lambda edge: (_rank(edge[0]), _rank(edge[1]), edge))
    diagram = "\n".join(["stateDiagram-v2", f"    [*] --> {Stage.PREFLIGHT}", *(f"    {a} --> {b}" for a, b in edges)])
    return (
        f"{HEAD}# Stages\n\nWhat `status.current.stage` says, and what follows it. The picture is not drawn by hand: the core was asked to play\n"
        "every example on a virtual clock: as it should go, with each criterion failing in the first step of its phase, with each guard\n"
        f"breached in the last, with each migration failing. What it passed through is what is here.\n\n```mermaid\n{diagram}\n```\n"
    )


def _rank(name: str) -> int:
    order = [stage.value for stage in Stage]
    return order.index(name) if name in order else len(order)


def _paths() -> Iterator[tuple[tuple[Stage, ...], str]]:
    for example in sorted((ROOT / "examples").rglob("*.yaml")):
        for document in yaml.safe_load_all(example.read_text()):
            if document.get("kind") != "SessionRollout" or document["spec"].get("suspend"):
                continue
            spec = RolloutSpec.model_validate(document["spec"])
            for scenario in _scenarios(spec):
                played = rehearse(spec, scenario)
                yield played.path, played.status.outcome.value if played.status.outcome else ""


def _scenarios(spec: RolloutSpec) -> Iterator[Scenario]:
    yield Scenario()
    for phase in spec.phases:
        for check in phase.criteria:
            yield Scenario(faults=(Fault(phase.name, 1, check.metric),))
        for guard in spec.guards:
            yield Scenario(faults=(Fault(phase.name, len(phase.steps), guard.metric),))
    for migration in spec.migrations:
        yield Scenario(failing=frozenset({migration.name}))


# --- the command line

CLI_INTRODUCTION: Final = """
`kubectl sessionrollout` is a plugin of kubectl. It uses your kubectl with the same authentication, and every command accepts kubectl's
flags: `--namespace`, `--context`, `--kubeconfig`, `--as`, `--server`, `--token` and so on. It changes a rollout only by creating a
SessionRolloutAction, so RBAC, audit logging and GitOps continue to apply.

`NAME` can be omitted if the namespace has exactly one rollout. `-o json` and `-o yaml` print data. Colors are off without a terminal and
with `NO_COLOR`. kubectl completes commands and names with `kubectl_complete-sessionrollout`, which is installed beside the plugin.
"""


def cli() -> str:
    """Every command of the plugin with its arguments, options, defaults and help, and the exit codes."""
    codes = [f"| {code.value} | {text} |" for code, text in MEANINGS.items()]
    names = [f"- [`{title}`](#{anchor})" for title, anchor in ((_title(path), _anchor(path)) for path, _ in _commands(app, ()))]
    parts = [f"{HEAD}# CLI", CLI_INTRODUCTION.strip(), "## Exit codes", "| code | meaning |\n|---|---|\n" + "\n".join(codes)]
    parts += ["## Commands", "\n".join(names)]
    parts += [part for path, command in _commands(app, ()) for part in _command(path, command)]
    return "\n\n".join(parts) + "\n"


def _commands(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, in the order of the help."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, "it is in the list"
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


def _title(path: tuple[str, ...]) -> str:
    return " ".join(path)


def _anchor(path: tuple[str, ...]) -> str:
    return "-".join(path)


def _command(path: tuple[str, ...], command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=f"kubectl sessionrollout {_title(path)}")
    yield f"### {_title(path)}"
    yield f"```\n{' '.join(command.collect_usage_pieces(context)).join((f'{context.command_path} ', ''))}\n```"
    yield "\n\n".join(" ".join(paragraph.split()) for paragraph in (command.help or "").split("\n\n"))
    shown = [option for option in command.params if isinstance(option, click.Option) and not _of_kubectl(option)]
    if shown:
        rows = [_option(option, context) for option in shown]
        yield "| option | default | meaning |\n|---|---|---|\n" + "\n".join(rows)


def _of_kubectl(option: click.Option) -> bool:
    return option.hidden or (option.name or "").startswith("kubectl_")


def _option(option: click.Option, context: click.Context) -> str:
    names = ", ".join(f"`{name}`" for name in sorted(option.opts, key=len))
    value = "" if option.is_flag else f" `{option.make_metavar(context)}`"
    default = f"`{option.default}`" if isinstance(option.default, str | int) and option.default and not option.is_flag else ""
    text = "required" if option.required else option.show_default if isinstance(option.show_default, str) else default
    return f"| {names}{_cell(value)} | {text} | {_cell(option.help or '')} |"


def pages() -> dict[Path, str]:
    """Every page that is written."""
    made = {"api": api, "cli": cli, "configuration": configuration, "metrics": metrics, "stages": stages}
    return {REFERENCE / f"{name}.md": text() for name, text in made.items()}


def main() -> None:
    """Write them."""
    for path, text in pages().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
