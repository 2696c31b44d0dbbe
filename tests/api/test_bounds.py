"""R5: bounds at the door, for every field there is: durations, texts, lists and numbers; and what a schema cannot bound.

The generators are checked, too: all that they draw is accepted, and they reach nearly every field and value of the schemas.
The last few, and many more objects: `make generated`.
"""

from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, seed, settings
from pydantic import BaseModel, ValidationError

from api.consistency import accepted_actions, candidates
from api.corpus import GOOD
from api.strategies import ACTION, ROLLOUT, Object, Schema, broken, paths, touched
from api.structural import problems
from session_rollout import settings as configuration
from session_rollout.api.quantities import Duration
from session_rollout.api.rollout import RolloutSpec
from session_rollout.cli.admission import check
from session_rollout.cli.warnings import Warn, warnings_of

SPECS: Final = {"rollout": ROLLOUT["properties"]["spec"], "action": ACTION["properties"]["spec"]}
FORBIDDEN: Final = ".rollback.verification[].approval"  # by a rule, though the schema has it
TOO_LONG: Final = ("999999w", "366d", "53w", "365d1ms", "99999999w", "99999999w99999999d99999999h")
FEW: Final = {"rollout": (80, 0.6), "action": (500, 0.9)}  # objects, and the share of fields and values that these reach


def durations(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every field that is a duration, by its pattern or its name for the unit."""
    if "([0-9]{1,8}w)?" in schema.get("pattern", ""):
        yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from durations(child, f"{path}.{name}")
    yield from durations(schema["items"], f"{path}[]") if "items" in schema else ()


FIELDS: Final = [(kind + path, schema) for kind, spec in SPECS.items() for path, schema in durations(spec)]


@pytest.mark.parametrize("schema", [schema for _, schema in FIELDS], ids=[path for path, _ in FIELDS])
def test_no_duration_is_longer_than_a_year(schema: Schema) -> None:
    """R5: `999999w` was accepted, and ended in a traceback every 5 s."""
    longest = next(
        (text for text in ("31d", "1h") if f"to {text}:" in str(schema)), "365d"
    )  # a baseline has a period, and a window
    assert not [*problems(longest, schema), *broken(longest, schema)]
    assert [text for text in TOO_LONG if not [*problems(text, schema), *broken(text, schema)]] == []


def test_durations_are_found() -> None:
    """In every place where the API has one, `ttl` of actions included."""
    assert {"rollout.bake", "rollout.checkInterval", "rollout.guards[].for", "action.ttl"} <= {path for path, _ in FIELDS}


def sections() -> Iterator[tuple[type[BaseModel], str]]:
    """Every field of the operator's configuration that is a duration by its default or its type."""
    for model in vars(configuration).values():
        if isinstance(model, type) and issubclass(model, configuration.Section):
            for name, field in model.model_fields.items():
                if set(getattr(Duration, "__metadata__", ())) & set(field.metadata):
                    yield model, name


@pytest.mark.parametrize(("model", "name"), list(sections()), ids=lambda part: getattr(part, "__name__", part))
def test_no_duration_of_the_configuration_is_longer_than_a_year(model: type[BaseModel], name: str) -> None:
    """The same for what administrators write."""
    for text in TOO_LONG:
        with pytest.raises(ValidationError) as caught:
            model.model_validate({name: text})
        assert (name,) in [tuple(problem["loc"]) for problem in caught.value.errors()] or any(
            problem["loc"] and str(problem["loc"][0]).lower() == name.replace("_", "").lower()
            for problem in caught.value.errors()
        )


@pytest.mark.parametrize(
    "query",
    ["rate(a[9999y])", "a offset 9999y", "(" * 1000 + "1" + ")" * 1000 + "+", "rate(a[365d]) offset 1d", "-" * 2000 + "a["],
    ids=["range", "offset", "nesting", "sum", "signs"],
)
def test_validate_says_which_queries_stall(query: str) -> None:
    """R5: CEL cannot read PromQL; the schema bounds its length, and `validate` its ranges and nesting."""
    spec = RolloutSpec.model_validate({**GOOD, "metrics": [{"name": "errors", "query": query}, GOOD["metrics"][1]]})
    found = [warning.field for warning in warnings_of(spec) if warning.rule == Warn.INVALID_QUERY]
    assert found == ["spec.metrics[0].query"]


@pytest.mark.parametrize("kind", ["rollout", "action"])
def test_what_is_generated_is_accepted_and_reaches_the_schema(kind: str) -> None:
    """The generators themselves."""
    objects, reached = FEW[kind]
    seen: set[str] = set()
    refused: list[str] = []

    @seed(0)
    @settings(max_examples=objects, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(candidates() if kind == "rollout" else accepted_actions())
    def draw(body: Object) -> None:
        refused.extend(map(str, check(body)))
        seen.update(touched(body["spec"], SPECS[kind]))

    draw()
    wanted = set(paths(SPECS[kind])) - {FORBIDDEN}
    assert refused == []
    assert len(seen & wanted) >= reached * len(wanted), sorted(wanted - seen)


def test_the_validator_of_statuses_objects() -> None:
    """The judge itself: each kind of mistake is found."""
    status = ROLLOUT["properties"]["status"]
    mistakes: list[tuple[Any, str]] = [
        ({"whatElse": 1}, "unknown"),
        ({"observedGeneration": -1}, "range"),
        ({"observedGeneration": True}, "integer"),
        ({"state": "Fine"}, "allowed"),
        ({"progress": "x" * 121}, "characters"),
        ({"current": {"phase": "No-Name"}}, "match"),
        ({"current": {"phase": "name\n"}}, "match"),
        ({"current": {"holdUntil": "soon"}}, "time"),
        ({"current": {"rollbackReasons": ["x"] * 9}}, "entries"),
        ({"current": {"groups": ["a", "a"]}}, "twice"),
        ({"phases": [{"name": "a"}, {"name": "a"}]}, "twice"),
        ({"phases": [{}]}, "missing"),
        ({"decision": {"message": "\ud800"}}, "UTF-8"),
    ]
    assert [mistake for mistake, word in mistakes if word not in " ".join(problems(mistake, status))] == []
