"""Two stages (direct with DeNS, then conservative) against one conservative stage from random weights, at equal cost.

    python benchmarks/two_stage.py --data nano.xyz --data silicon.xyz --folder runs/two_stage

trains both at once, one thread each: the first two stages of models/esen_nano, and benchmarks/two_stage/scratch.yaml,
whose epochs make both cost about the same CPU time. Writes benchmarks/results/two_stage.json and .png. Interrupted, the
same command goes on. The data are those of models/esen_nano: esen-flows label models/esen_nano/data.yaml --output
nano.xyz, and models/esen_silicon/data.yaml.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from esen_flows.plots.training import StageCurves, plot_learning_curves
from esen_flows.schemas.checkpoint_header import read_header
from esen_flows.training.metrics import read_rows

HERE = Path(__file__).parent
RUNS = {"two stages": ("pretrain", "finetune"), "conservative alone": ("scratch",)}
FILES = {"scratch": HERE / "two_stage", "pretrain": HERE.parent / "models/esen_nano"}
FILES["finetune"] = FILES["pretrain"]


def main() -> None:
    """Train, draw, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    chains = [subprocess.Popen(["bash", "-ec", chain(stages, options)], env=environment()) for stages in RUNS.values()]
    if max(process.wait() for process in chains):  # waits for all of them
        raise SystemExit("a training ended early; the same command goes on")
    curves = {
        name: [
            StageCurves(*(read_rows(options.folder / stage / f"{table}.csv") for table in ("steps", "history")))
            for stage in stages
        ]
        for name, stages in RUNS.items()
    }
    results = HERE / "results"
    plot_learning_curves(curves, results / "two_stage.png", clock="cpu_seconds")
    document = {
        "runs": {name: run_document(options.folder, stages) for name, stages in RUNS.items()},
        "device": "cpu, one thread each",
        "load_average": os.getloadavg(),
        "versions": {name: version(name) for name in ("torch", "esen_flows")},
        "date": time.strftime("%Y-%m-%d"),
    }
    (results / "two_stage.json").write_text(json.dumps(document, indent=1) + "\n")
    for name, run in document["runs"].items():
        last = run["history"][-1]["errors"]
        print(f"{name}: {run['cpu_seconds']:.0f} CPU s, {last}")


def environment() -> dict[str, str]:
    """One thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "ESEN_FLOWS_THREADS": "1"}


def chain(stages: tuple[str, ...], options: argparse.Namespace) -> str:
    """The commands of a run, one stage after the other."""
    command = Path(sys.executable).with_name("esen-flows")
    lines, initial = [], ""
    for stage in stages:
        file, folder = FILES[stage] / f"{stage}.yaml", options.folder / stage
        data = " ".join(f"--data {path}" for path in options.data)
        lines.append(f"{command} train {file} {data} --folder {folder} {initial} > {folder}.log 2>&1")
        initial = f"--initial {folder / 'checkpoint.safetensors'}"
    return f"mkdir -p {options.folder}\n" + "\n".join(lines)


def run_document(folder: Path, stages: tuple[str, ...]) -> dict[str, Any]:
    """Cost and held-out errors of a run, stage by stage, and of its end by group."""
    spent, history = 0.0, []
    for stage in stages:
        rows = read_rows(folder / stage / "history.csv")
        for row in rows:
            errors = {name: value for name, value in row.items() if "_mae_" in name}
            history.append({"stage": stage, "cpu_seconds": spent + row["cpu_seconds"], "errors": errors})
        spent += rows[-1]["cpu_seconds"]
    header = read_header(folder / stages[-1] / "checkpoint.safetensors")
    return {"cpu_seconds": spent, "history": history, "by_group": header["training"]["validation"]}


if __name__ == "__main__":
    main()
