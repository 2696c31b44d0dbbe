"""The chart's dashboards over a run of the lab: every query is sent, and every panel is drawn from its results.

Grafana itself is not part of the lab; what it would show is drawn here with matplotlib, in the layout of the dashboards.
"""

import json
import math
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
ROW_INCHES: Final = 0.34
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
        return [(_legend(target["legendFormat"], series["metric"]), *_columns(series["values"])) for series in result]

    def prove(self, proof: Proof) -> None:
        """Every query returned data."""
        empty = [f"{name} {panel}{ref}" for (name, panel, ref), series in self.answers.items() if not series]
        total = len(self.answers)
        text = f"queries of {len(self.boards)} dashboards returned data"
        proof.check(not empty, f"{total - len(empty)} of {total} {text}" + (f", not {', '.join(empty)}" if empty else ""))

    def draw(self, directory: Path) -> None:
        """One PNG for each dashboard."""
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt

        for name, board in self.boards.items():
            rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels(board))
            figure = plt.figure(figsize=(16, rows * ROW_INCHES + 0.6))
            figure.suptitle(board["title"], fontsize=14, y=1 - 0.2 / (rows * ROW_INCHES + 0.6))
            for panel in panels(board):
                self._panel(figure.add_axes(_place(panel["gridPos"], rows)), name, panel)
            figure.savefig(directory / f"dashboard-{name}.png", dpi=70)
            plt.close(figure)

    def _panel(self, axes: Any, name: str, panel: Object) -> None:
        axes.set_title(panel["title"], fontsize=9)
        defaults = panel["fieldConfig"]["defaults"]
        shown = [series for target in panel["targets"] for series in self.answers[name, panel["id"], target["refId"]]]
        if panel["type"] == "stat":
            legend, _, values = max(shown, key=lambda series: series[1][-1]) if shown else ("no data", [], [float("nan")])
            text, color = (legend, "black") if panel["options"].get("textMode") == "name" else _in_words(defaults, values[-1])
            axes.text(0.5, 0.45, text, ha="center", va="center", fontsize=18, color=color)
            axes.set_axis_off()
            return
        for legend, times, values in shown:
            axes.plot([time - self.start for time in times], values, linewidth=1.2, label=legend)
        red = [step["value"] for step in defaults.get("thresholds", {}).get("steps", []) if step["value"] is not None]
        for value in red:
            axes.axhline(value, color="tab:red", linewidth=0.8, linestyle="--")
        top = max([*(value for _, _, values in shown for value in values if math.isfinite(value)), *red, 0])
        axes.set_ylim(-0.02 * (top or 1), top * 1.15 or 1)  # a line at zero is seen
        axes.yaxis.set_major_formatter(lambda value, _: _in_unit(defaults["unit"], value))
        axes.tick_params(labelsize=7)
        axes.grid(visible=True, alpha=0.3)
        if 1 < len(shown) <= 20:
            axes.legend(fontsize=6, loc="upper left", ncols=1 if len(shown) < 8 else 4)


def _place(place: Object, rows: int) -> tuple[float, float, float, float]:
    """Left, bottom, width and height in the picture, with room for a title and the numbers."""
    height = rows * ROW_INCHES + 0.6
    left, width = place["x"] / COLUMNS, place["w"] / COLUMNS
    top = 1 - (place["y"] * ROW_INCHES + 0.7) / height
    tall = (place["h"] * ROW_INCHES - 0.55) / height
    return left + 0.04, top - tall, width - 0.05, tall


def _in_words(defaults: Object, value: float) -> tuple[str, str]:
    """What a single value is shown as, and its colour: by its name, or by the thresholds."""
    for mapping in defaults.get("mappings", []):
        if option := mapping["options"].get(f"{value:.0f}"):
            return option["text"], f"tab:{option['color']}"
    reached = [step["color"] for step in defaults["thresholds"]["steps"] if step["value"] is None or value >= step["value"]]
    return _in_unit(defaults["unit"], value), f"tab:{reached[-1]}"


def _in_unit(unit: str, value: float) -> str:
    match unit:
        case "percentunit":
            return f"{value * 100:.3g} %"
        case "s":
            return f"{value * 1000:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
        case "bytes":
            return f"{value / 2**20:.0f} MiB"
    return f"{value / 1000:.4g} k" if abs(value) >= 1000 else f"{value:.4g}"


def panels(board: Object) -> list[Object]:
    """Panels with a query."""
    return [panel for panel in board["panels"] if panel.get("targets")]


def _legend(text: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return text


def _columns(values: list[list[Any]]) -> tuple[list[float], list[float]]:
    return [float(time) for time, _ in values], [float(value) for _, value in values]
