"""The values of the chart: generated files are up to date and say so, and every value is described. Nothing here runs Helm."""

import json

import pytest
import yaml

from tools.chart import GENERATED, build
from tools.chart.values import Values

ROWS = list(build.rows(Values()))
HABITS = {"of", "which", "what", "where", "when.", "who"}


def test_generated_files_are_up_to_date() -> None:
    stale = [path.name for path, text in build.derived().items() if path.read_text() != text]
    assert stale == [], "make chart"


@pytest.mark.parametrize("path", [path for path in build.derived() if path.parent.name != "crds"], ids=lambda path: path.name)
def test_generated_files_say_so_at_the_top(path: object) -> None:
    """Whoever searches for a right or a value finds the file to edit; JSON has no comments, so dashboards say it in a field."""
    lines = build.derived()[path].splitlines()  # type: ignore[index]
    assert any(GENERATED in line for line in (lines if lines[0] == "{" else lines[:1]))


def test_generated_manifests_say_so_at_the_top() -> None:
    files = sorted((build.ROOT / "manifests").rglob("*.yaml"))
    assert len(files) > 10
    assert [path.name for path in files if not path.read_text().startswith(build.HEAD)] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path)
def test_every_value_is_described_in_sentences(row: build.Row) -> None:
    words = row.description.split()
    assert len(words) >= 3
    assert words[0].lower() not in HABITS
    assert row.description.endswith(".")


def test_every_list_and_map_without_entries_has_an_example() -> None:
    """Its format cannot be read off the default."""
    exempt = {"resources.requests", "resources.limits", "global"}
    missing = [row.path for row in ROWS if row.default in ([], {}) and not row.section and row.example is None]
    assert set(missing) - exempt == set()


def test_an_example_is_a_value() -> None:
    for row in ROWS:
        if row.example is not None:
            values = row.example
            for key in reversed(row.path.split(".")):
                values = {key: values}
            Values.model_validate(values)


def test_values_yaml_holds_the_defaults() -> None:
    values = yaml.safe_load((build.CHART / "values.yaml").read_text())
    assert Values.model_validate(values) == Values()
    assert json.loads((build.CHART / "values.schema.json").read_text())["$comment"] == GENERATED
