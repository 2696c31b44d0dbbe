"""`make chart`: writes what is derived from the models in values.py, from crds/ and from the chart itself.

These are values.yaml, values.schema.json, README.md, the dashboards and the copy of the CRDs in the chart; Argo CD's Lua; and
`manifests/`, which is the chart rendered for users of Kustomize. A test compares all of them with the committed files.
"""

import json
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from lab import sources
from tools.chart import GENERATED, gitops
from tools.chart.dashboards import dashboards
from tools.chart.values import Values

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "charts" / "session-rollout"
NAMESPACE: Final = "session-rollout"
HEAD: Final = f"# {GENERATED}\n"
WIDTH: Final = 120
# Overlays of Kustomize: the values that the chart is rendered with.
OVERLAYS: Final[dict[str, dict[str, Any]]] = {
    "cluster": {},
    "namespaced": {"namespaces": [NAMESPACE]},
    "ha": {"replicaCount": 2},
}
HELM_ONLY: Final = ("helm.sh/chart", "app.kubernetes.io/managed-by")
CONFIGURATION: Final = "session-rollout-configuration"


class _Dumper(yaml.SafeDumper):
    """Text of several lines as a block, as people write it."""

    def represent_str(self, text: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _Dumper.represent_str)


def dumped(document: Any) -> str:
    """YAML as people write it: keys in their order, two spaces, no folding."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1000)


def _plain(value: Any) -> Any:
    """A default as it is shown: of the operator's entries only what was set."""
    if isinstance(value, BaseModel):
        return to_jsonable_python(value.model_dump(by_alias=True, exclude_unset=True))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return to_jsonable_python(value)


@dataclass(frozen=True)
class Row:
    """One value of the chart; a section holds others."""

    path: str
    default: Any
    description: str
    section: bool = False
    example: Any = None


def rows(model: BaseModel, path: str = "") -> Iterator[Row]:
    """Every value and every section, in their order."""
    for name, field in type(model).model_fields.items():
        value, key = getattr(model, name), f"{path}{field.alias}"
        if isinstance(value, BaseModel):
            yield Row(key, None, field.description or (type(value).__doc__ or "").strip(), section=True)
            yield from rows(value, f"{key}.")
        else:
            example = field.examples[0] if field.examples else None
            yield Row(key, _plain(value), field.description or "", example=example)


def values_yaml() -> str:
    """The default values, each with its description and, where the format is not obvious, an example."""
    lines = [HEAD.rstrip(), "# Source: tools/chart/values.py. `values.schema.json` rejects unknown names and invalid values."]
    for row in rows(Values()):
        indent, name = "  " * row.path.count("."), row.path.rsplit(".", 1)[-1]
        if not row.path.count("."):
            lines.append("")
        lines += [f"{indent}# {line}" for line in textwrap.wrap(row.description, WIDTH - len(indent) - 2)]
        if row.example is not None:
            lines += [f"{indent}# Example:", *(f"{indent}#   {line}" for line in dumped({name: row.example}).splitlines())]
        if row.section:
            lines.append(f"{indent}{name}:")
        else:
            lines += [indent + line for line in dumped({name: row.default}).splitlines()]
    return "\n".join(lines) + "\n"


def schema() -> str:
    """The JSON schema; pydantic's titles only repeat the names."""
    head = {"$comment": GENERATED, "$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(head | _lean(Values.model_json_schema(by_alias=True)), indent=2) + "\n"


def _lean(node: Any) -> Any:
    match node:
        case {"anyOf": [dict(inner), {"type": "null"}], **beside}:
            return _lean({**inner, **{key: value for key, value in beside.items() if key != "default"}})
        case {"properties": dict(properties), **beside}:
            return {**_lean(beside), "properties": {name: _lean(value) for name, value in properties.items()}}
        case {"patternProperties": _} if "additionalProperties" not in node:
            return _lean({**node, "additionalProperties": False})
        case dict():
            return {
                key: value if key == "examples" else _lean(value)
                for key, value in node.items()
                if key not in {"title", "default"}
            }
        case list():
            return [_lean(item) for item in node]
    return node


def readme() -> str:
    """The chart's README: the template, then the table of values."""
    template = (Path(__file__).parent / "README.tmpl.md").read_text()
    table = ["| Value | Default | Description |", "|---|---|---|"]
    for row in rows(Values()):
        if not row.section:
            example = "" if row.example is None else f" Example: `{_cell(json.dumps(row.example))}`"
            table.append(f"| `{row.path}` | `{_cell(json.dumps(row.default))}` | {_cell(row.description)}{example} |")
    return f"<!-- {GENERATED} Source: tools/chart. -->\n" + template.replace("{{ values }}", "\n".join(table))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def render(
    values: dict[str, Any], *options: str, namespace: str = NAMESPACE, release: str = "session-rollout"
) -> list[dict[str, Any]]:
    """The chart's objects for these values, as helm renders them."""
    command = [
        str(sources.helm()),
        "template",
        release,
        str(CHART),
        "--namespace",
        namespace,
        "--values",
        "-",
        *options,
    ]
    done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr.strip())
    return [document for document in yaml.load_all(done.stdout, yaml.CSafeLoader) if document]


def identity(document: dict[str, Any]) -> tuple[str, str, str]:
    """Kind, namespace and name."""
    metadata = document["metadata"]
    return document["kind"], metadata.get("namespace", ""), metadata["name"]


def without_helm(document: dict[str, Any]) -> dict[str, Any]:
    """An object without what only helm says: its labels, and the checksum, which Kustomize has in a name."""
    metadata = {key: value for key, value in document["metadata"].items() if key != "annotations"}
    annotations = {
        key: value
        for key, value in document["metadata"].get("annotations", {}).items()
        if not key.startswith("helm.sh/") and not key.startswith("checksum/")
    }
    labels = {key: value for key, value in metadata.get("labels", {}).items() if key not in HELM_ONLY}
    metadata |= ({"labels": labels} if labels else {}) | ({"annotations": annotations} if annotations else {})
    if document["kind"] == "Deployment":
        template = document["spec"]["template"]
        document = {
            **document,
            "spec": {**document["spec"], "template": {**template, **without_helm({"kind": "Pod", **template})}},
        }
        document["spec"]["template"].pop("kind")
    return {**document, "metadata": metadata}


def manifests() -> dict[str, str]:
    """Path to text of everything in `manifests/`: what all overlays share, and what each has in addition."""
    rendered = {
        name: {
            identity(document): without_helm(document)
            for document in render(values)
            if document["kind"] != "CustomResourceDefinition"
            and "helm.sh/hook" not in document["metadata"].get("annotations", {})
        }
        for name, values in OVERLAYS.items()
    }
    keys = [key for key in rendered["cluster"] if all(key in objects for objects in rendered.values())]
    base = {key: rendered["cluster"][key] for key in keys if key[2] != CONFIGURATION}
    files = {"base/objects.yaml": "---\n".join(dumped(document) for document in base.values())}
    files["base/namespace.yaml"] = dumped(_namespace())
    configuration = next(document for key, document in rendered["cluster"].items() if key[2] == CONFIGURATION)
    files["base/operator.yaml"] = configuration["data"]["operator.yaml"]
    files["base/kustomization.yaml"] = dumped(
        _kustomization(
            resources=["../../crds", "namespace.yaml", "objects.yaml"],
            configMapGenerator=[
                {
                    "name": CONFIGURATION,
                    "namespace": NAMESPACE,
                    "files": ["operator.yaml"],
                    "options": {"labels": configuration["metadata"]["labels"]},
                }
            ],
        )
    )
    for name, objects in rendered.items():
        files |= {f"overlays/{name}/{path}": text for path, text in _overlay(base, objects, configuration).items()}
    return {path: HEAD + text for path, text in files.items()}


def _overlay(base: dict[Any, Any], objects: dict[Any, Any], configuration: dict[str, Any]) -> dict[str, str]:
    own = [document for key, document in objects.items() if key not in base and key[2] != CONFIGURATION]
    files: dict[str, str] = {"objects.yaml": "---\n".join(dumped(document) for document in own)}
    beside: dict[str, Any] = {}
    patches = [dumped(patch) for key, document in objects.items() if key in base and (patch := _patch(base[key], document))]
    if patches:
        files["patches.yaml"] = "---\n".join(patches)
        beside["patches"] = [{"path": "patches.yaml"}]
    own_configuration = next(document for key, document in objects.items() if key[2] == CONFIGURATION)
    if own_configuration["data"] != configuration["data"]:
        files["operator.yaml"] = own_configuration["data"]["operator.yaml"]
        beside["configMapGenerator"] = [
            {"name": CONFIGURATION, "namespace": NAMESPACE, "behavior": "replace", "files": ["operator.yaml"]}
        ]
    files["kustomization.yaml"] = dumped(_kustomization(resources=["../../base", "objects.yaml"], **beside))
    return files


def _patch(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """A strategic merge patch of what a replica count or the like changes; lists are replaced as Kubernetes merges them."""
    changed = _difference(ours, theirs)
    if not changed:
        return {}
    name = {key: theirs["metadata"][key] for key in ("name", "namespace") if key in theirs["metadata"]}
    return {"apiVersion": theirs["apiVersion"], "kind": theirs["kind"], "metadata": name, **changed}


def _difference(ours: Any, theirs: Any) -> Any:
    result = {}
    for key, value in theirs.items():
        if key not in ours:
            result[key] = value
        elif isinstance(value, dict) and isinstance(ours[key], dict):
            if inner := _difference(ours[key], value):
                result[key] = inner
        elif ours[key] != value:
            result[key] = value
    return result


def _kustomization(**parts: Any) -> dict[str, Any]:
    return {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", **parts}


def _namespace() -> dict[str, Any]:
    enforced = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": enforced}}


def derived() -> dict[Path, str]:
    """Every file that is written, with its text; the chart's own first, for manifests are rendered from it."""
    files = {
        CHART / "values.yaml": values_yaml(),
        CHART / "values.schema.json": schema(),
        CHART / "README.md": readme(),
    }
    crds = sorted((ROOT / "crds").glob("sessionrollout*.yaml"))
    files |= {CHART / "files" / "crds" / path.name: path.read_text() for path in crds}
    files |= gitops.files()
    files |= {CHART / "files" / "dashboards" / f"{name}.json": text for name, text in dashboards().items()}
    return files


def main() -> None:
    """Write everything."""
    files = derived()
    _write(files)
    _write({ROOT / "manifests" / path: text for path, text in manifests().items()})


def _write(files: dict[Path, str]) -> None:
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
