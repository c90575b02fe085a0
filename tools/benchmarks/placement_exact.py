"""An exact model of bin packing with overlapping items, for CBC (coinor-cbc)."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any


def solve_exactly(instances: list[dict[str, Any]], found: list[int],
                  seconds: int) -> dict[str, Any]:
    """Asks, for each instance, whether one bin less than was found would do."""
    answers = [_fits(instance, bins - 1, seconds) for instance, bins in zip(instances, found)]
    return {"instances": len(instances),
            "proved_that_fewer_cannot_do": answers.count(False),
            "found_fewer": answers.count(True),
            "gave_up": answers.count(None)}


def _fits(instance: dict[str, Any], bins: int, seconds: int) -> bool | None:
    """Whether the items fit into so many bins; None when time ran out."""
    if bins < 1:
        return False
    with tempfile.TemporaryDirectory() as folder:
        model, solution = Path(folder) / "model.lp", Path(folder) / "solution"
        model.write_text(_model(instance, bins))
        subprocess.run(["cbc", str(model), "sec", str(seconds), "solve", "solu", str(solution)],
                       stdout=subprocess.DEVNULL, check=True)
        verdict = solution.read_text().splitlines()[0].lower() if solution.exists() else ""
    if "infeasible" in verdict:
        return False
    return True if verdict.startswith("optimal") else None


def _model(instance: dict[str, Any], bins: int) -> str:
    """x_i_b: item i is in bin b; y_s_b: bin b holds symbol s. Item i is in one of the first i+1
    bins, which takes the bins' symmetry away."""
    tiles, capacity = instance["tiles"], instance["capacity"]
    symbols = sorted({symbol for tile in tiles for symbol in tile})
    lines = ["Minimize", f" cost: y_{symbols[0]}_0", "Subject To"]
    for i in range(len(tiles)):
        terms = " + ".join(f"x_{i}_{b}" for b in range(min(i + 1, bins)))
        lines.append(f" one_{i}: {terms} = 1")
    for b in range(bins):
        terms = " + ".join(f"y_{s}_{b}" for s in symbols)
        lines.append(f" room_{b}: {terms} <= {capacity}")
    for i, tile in enumerate(tiles):
        for b in range(min(i + 1, bins)):
            lines += [f" has_{i}_{b}_{s}: y_{s}_{b} - x_{i}_{b} >= 0" for s in tile]
    lines.append("Binaries")
    lines += [f" x_{i}_{b}" for i in range(len(tiles)) for b in range(min(i + 1, bins))]
    lines += [f" y_{s}_{b}" for s in symbols for b in range(bins)]
    return "\n".join([*lines, "End", ""])
