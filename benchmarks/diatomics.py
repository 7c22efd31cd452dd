"""Curves of diatomic molecules by force fields of other packages against their cards on the leaderboard.

    python benchmarks/diatomics.py chgnet:float64:chgnet-0.3.0 sevennet_l3i5:float32:sevennet-l3i5:He

Each argument is a model, its precision, its key on the leaderboard, and the elements that its card excludes. Written to
results/diatomics_MODEL.json: the twelve metrics here and on the card, over all elements and without the excluded ones.
"""

import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from esen_flows.forcefield.load import load_force_field
from esen_flows.metrics.diatomics import curves_of, model_metrics, pbe_curves
from esen_flows.metrics.published import published_rows
from esen_flows.physics.diatomics import diatomic_curves
from esen_flows.schemas.diatomics import DiatomicsProtocol

RESULTS = Path(__file__).parent / "results"


def measured(name: str, dtype: Any, key: str, excluded: list[str]) -> dict[str, Any]:
    """Metrics of one force field beside those of its card."""
    force_field = load_force_field(name, dtype=dtype)
    wall, cpu = time.perf_counter(), time.process_time()
    output = diatomic_curves(force_field, DiatomicsProtocol())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    curves = curves_of(output)
    kept = {element: curve for element, curve in curves.items() if element not in excluded}
    (card,) = [row.values for row in published_rows() if row.key == key]
    everything, like_card = (model_metrics(each, pbe_curves()) for each in (curves, kept))
    return {
        "model": force_field.label,
        "dtype": dtype,
        "card": key,
        "excluded_on_card": excluded,
        "cpu_seconds": round(cpu, 1),
        "wall_seconds": round(wall, 1),
        "seconds_on_card": card["diatomics_run_time_sec"],
        "force_evaluations": force_field.force_evaluations,
        "metrics": {
            metric: {"here": like_card[metric], "card": card[f"diatomics_{metric}"], "here_all": value}
            for metric, value in everything.items()
        },
        "versions": {package: version(package) for package in ("torch", "chgnet", "sevenn")},
        "cpu": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Measure the models that are named."""
    torch.set_num_threads(1)
    for argument in sys.argv[1:]:
        name, dtype, key, *excluded = argument.split(":")
        found = measured(name, dtype, key, excluded[0].split(",") if excluded else [])
        (RESULTS / f"diatomics_{name}.json").write_text(json.dumps(found, indent=1) + "\n")
        print(json.dumps(found["metrics"], indent=1))


if __name__ == "__main__":
    main()
