"""The chart's dashboards over a run of the lab: every query asked, and every panel drawn from the same answers.

Grafana itself is not part of the lab; what it would show is drawn here with matplotlib, at the places the dashboards say.
"""

import json
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Final

from lab.kube import Object
from lab.lab import ROOT
from lab.proofs import Proof

BOARDS: Final = ROOT / "charts" / "session-rollout" / "files" / "dashboards"
POINTS: Final = 200
COLUMNS: Final = 24
Series = tuple[str, list[float], list[float]]


class Boards:
    """All panels of all dashboards, with what Prometheus answered for a time."""

    def __init__(self, url: str, start: float, end: float, variables: dict[str, str]) -> None:
        self.url, self.start, self.end, self.variables = url, start, end, variables
        self.boards: dict[str, Object] = {path.stem: json.loads(path.read_text()) for path in sorted(BOARDS.glob("*.json"))}
        self.answers = {
            (name, panel["id"], target["refId"]): self._ask(target)
            for name, board in self.boards.items()
            for panel in panels(board)
            for target in panel["targets"]
        }

    def _ask(self, target: Object) -> list[Series]:
        query = target["expr"]
        for name, value in self.variables.items():
            query = query.replace(f"${name}", value)
        step = max((self.end - self.start) / POINTS, 1)
        asked = urllib.parse.urlencode({"query": query, "start": self.start, "end": self.end, "step": step})
        with urllib.request.urlopen(f"{self.url}/api/v1/query_range?{asked}", timeout=30) as answer:
            result = json.load(answer)["data"]["result"]
        return [(_legend(target["legendFormat"], one["metric"]), *_columns(one["values"])) for one in result]

    def prove(self, proof: Proof) -> None:
        """Every query returned data."""
        empty = [f"{name} {panel}{ref}" for (name, panel, ref), series in self.answers.items() if not series]
        total = len(self.answers)
        said = f"queries of {len(self.boards)} dashboards returned data"
        proof.check(not empty, f"{total - len(empty)} of {total} {said}" + (f", not {', '.join(empty)}" if empty else ""))

    def draw(self, directory: Path) -> None:
        """One PNG for each dashboard."""
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt

        for name, board in self.boards.items():
            rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels(board))
            figure = plt.figure(figsize=(16, rows * 0.34), layout="constrained")
            grid = figure.add_gridspec(rows, COLUMNS)
            figure.suptitle(board["title"], fontsize=14)
            for panel in panels(board):
                place = panel["gridPos"]
                axes = figure.add_subplot(grid[place["y"] : place["y"] + place["h"], place["x"] : place["x"] + place["w"]])
                self._panel(axes, name, panel)
            figure.savefig(directory / f"dashboard-{name}.png", dpi=70)
            plt.close(figure)

    def _panel(self, axes: Any, name: str, panel: Object) -> None:
        axes.set_title(panel["title"], fontsize=9)
        found = [series for target in panel["targets"] for series in self.answers[name, panel["id"], target["refId"]]]
        if panel["type"] == "stat":
            value = found[0][2][-1] if found else float("nan")
            axes.text(0.5, 0.45, f"{value:g}", ha="center", va="center", fontsize=18)
            axes.set_axis_off()
            return
        for legend, times, values in found:
            axes.plot([time - self.start for time in times], values, linewidth=1, label=legend)
        axes.tick_params(labelsize=7)
        axes.grid(visible=True, alpha=0.3)
        if 1 < len(found) <= 8:
            axes.legend(fontsize=6, loc="best")


def panels(board: Object) -> list[Object]:
    """Those that ask something."""
    return [panel for panel in board["panels"] if panel.get("targets")]


def _legend(text: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return text


def _columns(values: list[list[Any]]) -> tuple[list[float], list[float]]:
    return [float(time) for time, _ in values], [float(value) for _, value in values]
