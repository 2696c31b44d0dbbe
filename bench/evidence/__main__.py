"""The simulations of the comparison between cohorts, each figure against its limit.

make evidence [SCALE=0.1] [SCENARIO=detection]
"""

import argparse
import sys
import time

from bench.evidence.scenarios import SCENARIOS
from bench.figures import Figure, show


def main() -> int:
    """Print the figures; 1 if one exceeds its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, []], help="all, unless some are named")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the runs")
    options = parser.parse_args()
    figures: list[Figure] = []
    for name in options.scenarios or SCENARIOS:
        begun = time.monotonic()
        for figure in SCENARIOS[name](options.scale):
            figures.append(figure)
            print(f"{figure.name}: {figure.value:.3g} {figure.unit} (limit {figure.limit:g})", flush=True)
        print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
    show(figures)
    return int(any(figure.ratio > 1 for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
