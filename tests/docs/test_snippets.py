"""Examples in the documentation that are not whole commands: YAML is accepted by the models, and the application's code runs.

Not here: commands (test_docs.py), objects of the README in a real API server (tests/api), the Node example, which needs npm.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from lab import sources
from lab.lab import ROOT
from session_rollout.api.action import ActionSpec
from session_rollout.api.phases import Phase
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.flags import Audience, FlagSource, compile_document
from session_rollout.migrations.copy.spec import CopySpec
from session_rollout.settings import Settings

DOCS = ROOT / "docs"
VALUES = ROOT / "charts" / "session-rollout" / "values.schema.json"
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
# What a fragment of an object is completed with.
PHASE: dict[str, Any] = {"name": "a", "features": ["a"], "steps": [{"percent": 100, "hold": "1d"}]}
SPEC: dict[str, Any] = {"flagSet": "a", "features": [{"name": "a"}], "phases": [PHASE]}
SCENARIO = {"start", "approveAfter", "migrations", "failMigrations", "fail", "outage"}
USERS = [f"user-{number}" for number in range(1000)]


def blocks() -> Iterator[Any]:
    """Each YAML example with where it is."""
    for page in (ROOT / "README.md", *sorted(DOCS.rglob("*.md"))):
        for number, text in enumerate(BLOCK.findall(page.read_text())):
            yield pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}")


def wire_names(model: type[BaseModel]) -> set[str]:
    """Names of the fields in YAML."""
    return {field.alias or name for name, field in model.model_fields.items()}


@pytest.mark.parametrize("text", list(blocks()))
def test_yaml_is_accepted(text: str) -> None:
    """An object by its kind; a fragment by the model that has its fields."""
    document = yaml.safe_load(text)
    match document:
        case {"kind": "SessionRollout", "spec": spec}:
            RolloutSpec.model_validate(spec)
        case {"kind": "SessionRolloutAction", "spec": spec}:
            ActionSpec.model_validate(spec)
        case {"kind": "Kustomization"}:
            assert document["resources"]
        case {"kind": _}:
            assert {"apiVersion", "metadata"} <= set(document)
        case _:
            _accept_fragment(document)


def _accept_fragment(document: dict[str, Any]) -> None:
    keys = set(document)
    if keys <= wire_names(RolloutSpec):
        phases = [{**PHASE, **phase} for phase in document.get("phases", [PHASE])]
        RolloutSpec.model_validate({**SPEC, **document, "phases": phases})
    elif keys <= wire_names(Phase):
        Phase.model_validate({**PHASE, **document})
    elif "source" in keys:
        CopySpec.model_validate(document)
    elif keys <= wire_names(Settings):
        Settings.model_validate(document)
    elif not keys <= SCENARIO:
        errors = Draft202012Validator(json.loads(VALUES.read_text())).iter_errors(document)
        assert [error.message for error in errors] == []


@pytest.mark.parametrize(
    ("failures", "requests", "expected"),
    [
        ("0+1x900", "0+1000x900", 0.0),  # as the objective allows
        ("0+1x720 721+200x60", "0+1000x900", 1.0),  # a fifth fails for an hour
        ("0+1x420 421+10x360", "0+1000x900", 1.0),  # ten times the budget for six hours
        ("0+0x720 1+0x60", "0+0.1x900", 0.0),  # one failure of few
        ("_x900", "0+1000x900", 0.0),  # a counter that no failure has created
    ],
)
def test_query_of_a_burning_budget(failures: str, requests: str, expected: float, tmp_path: Path) -> None:
    """As promtool evaluates it after thirteen hours."""
    texts = BLOCK.findall((DOCS / "how-to" / "criteria-and-guards.md").read_text())
    (metric,) = (each for text in texts for each in yaml.safe_load(text).get("metrics", ()) if each["name"] == "budget-burns")
    series = {'requests_total{code="500"}': failures, 'requests_total{code="200"}': requests}
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": metric["query"], "eval_time": "13h", "exp_samples": [{"labels": "{}", "value": expected}]}
        ],
    }
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump({"tests": [test]}))
    promtool = sources.prometheus().parent / "promtool"
    done = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _document(percent: str) -> str:
    audience = Audience(Decimal(percent), ("beta",))
    return compile_document(FlagSource("checkout", "shop", {"newCheckout": audience})).text


def test_python_example_evaluates_the_flag_document(tmp_path: Path) -> None:
    """The code of the page, with the file where it is here: groups, share, an override, the bucketing generation."""
    page = (DOCS / "how-to" / "application.md").read_text()
    first, generation, _ = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    path = tmp_path / "flags.flagd.json"
    path.write_text(_document("25"))
    names: dict[str, Any] = {}
    exec(first.replace("/etc/flags/flags.flagd.json", str(path)), names)
    try:
        has_feature = names["has_feature"]
        assert has_feature("alice", ["beta"], "newCheckout") is True
        assert sum(has_feature(user, [], "newCheckout") for user in USERS) == pytest.approx(250, abs=50)
        assert has_feature("", [], "newCheckout") is False
        assert eval(generation, names) == json.loads(_document("25"))["metadata"]["bucketingGeneration"]
        context = names["EvaluationContext"]("alice", {"groups": ["beta"], "overridesOff": ["newCheckout"]})
        assert names["client"].get_boolean_value("newCheckout", True, context) is False
    finally:
        names["api"].shutdown()
