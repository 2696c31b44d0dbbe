"""The dashboards: complete, and about nothing that is not exported. `make demo` asks every query of a real Prometheus."""

import json
import re

import pytest
from promql_parser import parse

from lab.boards import BOARDS, panels
from session_rollout.adapters import telemetry

NAMES = ("fleet", "rollout", "session")
EXPORTED = {getattr(one, "_name", "") for one in vars(telemetry).values()}


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_is_complete(name: str) -> None:
    board = json.loads((BOARDS / f"{name}.json").read_text())
    assert board["uid"] == f"sessionrollout-{name}"
    assert '"options": null' not in json.dumps(board)
    numbers = [panel["id"] for panel in panels(board)]
    assert len(numbers) == len(set(numbers)) > 10
    for panel in panels(board):
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


@pytest.mark.parametrize("name", NAMES)
def test_queries_parse_and_name_what_is_exported(name: str) -> None:
    board = json.loads((BOARDS / f"{name}.json").read_text())
    variables = {one["name"] for one in board["templating"]["list"]}
    for panel in panels(board):
        for target in panel["targets"]:
            query = target["expr"]
            parse(query)
            assert set(re.findall(r"\$(\w+)", query)) <= variables
            for metric in re.findall(r"sessionrollout_\w+", query):
                bare = re.sub(r"_(total|bucket|sum|count)$", "", metric)
                assert bare in EXPORTED, metric


def test_a_condition_is_shown_in_words() -> None:
    """Grafana's own `bool` calls everything but 0 a yes, and Unknown is -1."""
    board = json.loads((BOARDS / "rollout.json").read_text())
    shown = {}
    for panel in panels(board):
        if named := re.search(r'sessionrollout_condition\{.*type="(\w+)"', panel["targets"][0]["expr"]):
            [mapping] = panel["fieldConfig"]["defaults"]["mappings"]
            shown[named[1]] = set(mapping["options"])
    both, three = {"0", "1"}, {"-1", "0", "1"}
    assert shown == {"Ready": three, "EvidenceAvailable": three, "Stalled": both, "Paused": both}
