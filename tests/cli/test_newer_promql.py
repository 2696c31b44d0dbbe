"""Commands on queries that the parser does not know, because only a newer Prometheus does."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from api.corpus import GOOD
from session_rollout.cli.app import app
from session_rollout.cli.command import Exit, code_of
from session_rollout.cli.warnings import Warn

RATIO: Final = "sum(rate(errors{c='$cohort'}[5m] offset (2d))) / sum(rate(requests[5m] offset (2d)))"
SOURCES: Final[dict[str, dict[str, Any]]] = {
    "query": {"query": RATIO.replace("$cohort", "a")},
    "cohorts": {"cohorts": {"good": RATIO, "total": RATIO.replace("errors", "requests")}},
}


def rollout(source: dict[str, Any], directory: Path) -> str:
    """The path of a rollout with a criterion on such a query."""
    criteria = [{"name": "newer", "metric": "newer", "below": "1%"}]
    first, *others = GOOD["phases"]
    spec = {
        **GOOD,
        "metrics": [*GOOD["metrics"], {"name": "newer", **source}],
        "phases": [{**first, "criteria": criteria}, *others],
    }
    file = directory / "shop.yaml"
    head = {"apiVersion": "sessionrollout.dev/v1alpha1", "kind": "SessionRollout", "metadata": {"name": "shop"}}
    file.write_text(yaml.safe_dump({**head, "spec": spec}))
    return str(file)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_validate_warns_about_how_far_back_it_looks(
    source: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server judges the rest."""
    assert code_of(app, ["validate", "-o", "json", rollout(source, tmp_path)]) == Exit.DONE
    rows = json.loads(capsys.readouterr().out)
    about = {row["rule"] for row in rows if row["field"] == "spec.phases[0].criteria[0].metric"}
    assert about == {Warn.RANGE_LONGER_THAN_HOLD}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_rehearse_runs_it(source: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback."""
    file = rollout(source, tmp_path)
    assert code_of(app, ["rehearse", file]) == Exit.DONE
    assert "Traceback" not in capsys.readouterr().err
