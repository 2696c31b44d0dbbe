"""A measured figure against its limit, and how figures are shown."""

import json
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured number against its limit; a ratio of at most 1 is within."""

    name: str
    value: float
    unit: str
    limit: float
    at_least: bool = False

    @property
    def ratio(self) -> float:
        """How much of the limit is used."""
        return self.limit / self.value if self.at_least else self.value / self.limit


def show(figures: list[Figure]) -> None:
    """The table, then the JSON."""
    table = Table("figure", "value", "limit", "ratio to limit")
    for figure in sorted(figures, key=lambda figure: figure.name):
        sign = ">=" if figure.at_least else "<="
        table.add_row(figure.name, f"{figure.value:.3g} {figure.unit}", f"{sign} {figure.limit:.3g}", f"{figure.ratio:.2f}")
    Console().print(table)
    print(json.dumps([{**asdict(figure), "limit": str(figure.limit)} for figure in figures]))
