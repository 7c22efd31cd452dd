"""eSEN's speed: this package, the public reference implementations, and the bare matrix products, in one run.

    python benchmarks/esen_speed.py [--quick | --smoke | --scaling] [--environments FOLDER] [--device cuda]

Each implementation runs in a process of its own (`esen_speed_worker.py`), one after the other on the same structure,
with the same weights, threads and allocator; each process also times the matrix products alone (`esen_speed_floor.py`),
between its calls. FOLDER holds the environments that `reference_env.sh` makes; without it only this package is timed.
Writes benchmarks/results/esen_speed_<device>.json (--scaling: esen_speed_scaling_<device>.json; --smoke: only prints)
and, beside it, a plot and a profile.

`ratio_cpu` and `ratio_wall` of a row are the reference's seconds over ours; `ratio_floor` is our CPU seconds over those
of the matrix products in the same process (on a GPU: seconds over seconds). `*_error` are against float64.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from ase import Atoms
from esen_speed_cases import FULL, GPU, QUICK, SCALING, SMOKE, Case, structure
from esen_speed_floor import Sizes, floor_flops, formula_flops, timed
from esen_speed_plot import plot

from esen_flows.data.neighbors import neighbor_pairs, pair_table
from esen_flows.forcefield.checkpoint import Checkpoint, load, save
from esen_flows.forcefield.contract import Evaluation
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.network.esen.config import PUBLISHED, ESENConfig
from esen_flows.network.esen.esen import ESEN

HERE = Path(__file__).parent
OURS = "esen_flows"
REFERENCES = {"fairchem-core 1.10.0": "fairchem-1.10.0", "fairchem-core 2.24.0": "fairchem-2.24.0"}
ELEMENTS = (1, 6, 8, 14, 29)
# glibc returns large tensors to the system after use and faults every page in again at the next; "tuned" keeps them.
ALLOCATORS = {"tuned": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1"}, "default": {}}
AGREEMENT = {"float32": 1e-3, "float64": 1e-5}  # relative; within it, the same thing was timed
DAY = 86400.0
PROFILED = "esen_3.2m/Si/216/float32"
REPEATS = {"cpu": 5, "cuda": 30}  # timed calls; on a GPU they are short


def main() -> None:
    """Measure the selected rows and write them after each."""
    options = _arguments()
    cases = [case for case in _selection(options) if re.search(options.only, case.name)]
    environment = {
        "device": _device_name(options.device),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "repeats": options.repeats,
        "load_average": os.getloadavg(),
        "date": time.strftime("%Y-%m-%d"),
    }
    path = _output(options)
    rows: list[dict[str, Any]] = []
    for case in cases:
        for allocator in options.allocators.split(",") if options.device == "cpu" else ["default"]:
            row = measure(case, allocator, options)
            profile = row.pop("profile", None)
            rows.append(row)
            print(_line(row), flush=True)
            if path is not None:
                document = {**environment, "rows": rows, **({"scaling": scaling(rows)} if options.scaling else {})}
                path.write_text(json.dumps(document, indent=1) + "\n")
                plot(document, path.with_suffix(".png"))
                if profile is not None:
                    path.with_name(f"{path.stem}_profile.txt").write_text(f"One call of {case.name}\n{profile}\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    selection = parser.add_mutually_exclusive_group()
    selection.add_argument("--quick", action="store_true", help="3.2M/216 Si, 30M/64 Si, 30M/216 Si")
    selection.add_argument("--smoke", action="store_true", help="8 and 64 atoms, nothing written")
    selection.add_argument("--scaling", action="store_true", help="this package alone, 64 to 20,000 atoms")
    parser.add_argument("--environments", type=Path, help="folder of the references' environments")
    parser.add_argument("--device", default="cpu", help='"cpu", "cuda"')
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, help=f"timed calls of each, after some others; default {REPEATS}")
    parser.add_argument("--only", default="", help="regular expression on model/structure/atoms/dtype")
    parser.add_argument("--allocators", default="tuned,default", help="which of tuned, default")
    parser.add_argument("--output", type=Path, help="another file than the default")
    options = parser.parse_args()
    options.repeats = options.repeats or REPEATS[options.device.split(":")[0]]
    return options


def _selection(options: argparse.Namespace) -> Sequence[Case]:
    for chosen, cases in ((options.quick, QUICK), (options.smoke, SMOKE), (options.scaling, SCALING)):
        if chosen:
            return cases
    return FULL if options.device == "cpu" else GPU


def measure(case: Case, allocator: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row: this package, and each reference that has an environment."""
    config = PUBLISHED[case.model]
    atoms = structure(case.structure, case.atoms)
    pairs = pair_table(atoms, config.cutoff_angstrom)
    listed = [timed(lambda: neighbor_pairs(atoms, config.cutoff_angstrom)).cpu_seconds for _ in range(3)]
    sizes = Sizes(**{name: getattr(config, name) for name in Sizes.__dataclass_fields__})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        system = {"numbers": atoms.numbers, "positions": atoms.positions, "cell": atoms.cell.array}
        edges = {"source": pairs.source, "target": pairs.target, "shifts": pairs.shifts.long()}
        np.savez(folder / "system.npz", **system, **edges)
        write_weights(folder, config)
        (folder / "task.json").write_text(json.dumps(_task(case, config, sizes, options, allocator)))
        ours = run(OURS, Path(sys.executable), folder, allocator, options)
        if "error" in ours:
            raise SystemExit(f"{case.name}: {ours['error']}")
        references = {}
        for reference, environment in REFERENCES.items() if case.references and options.environments else ():
            python = options.environments / environment / "bin" / "python"
            references[reference] = run(reference, python, folder, allocator, options)
        if case.references:
            exact = exact_result(folder, atoms)
            for implementation, answer in {OURS: ours, **references}.items():
                if "error" not in answer:
                    answer |= errors(folder, implementation, exact, case)
    return {
        "model": case.model,
        "structure": case.structure,
        "atoms": case.atoms,
        "edges": len(pairs.source),
        "dtype": case.dtype,
        "memory_bytes": case.memory_bytes,
        "allocator": allocator,
        **ours,
        "neighbor_list_cpu_seconds": median(listed),
        "floor_gflop": floor_flops(sizes, len(atoms), len(pairs.source)) / 1e9,
        "formula_gflop": formula_flops(sizes, len(atoms), len(pairs.source)) / 1e9,
        **_ratios(ours, references, options.device),
        "reference": references,
    }


def _ratios(ours: dict[str, Any], references: dict[str, dict[str, Any]], device: str) -> dict[str, Any]:
    quantity = "cpu_seconds" if device == "cpu" else "seconds"
    finished = {name: value for name, value in references.items() if "error" not in value}
    return {
        "ratio_floor": ours[quantity] / ours[f"floor_{quantity}"],
        "million_steps_per_day": DAY / ours["seconds"] / 1e6,
        "ratio_cpu": {name: value["cpu_seconds"] / ours["cpu_seconds"] for name, value in finished.items()},
        "ratio_wall": {name: value["seconds"] / ours["seconds"] for name, value in finished.items()},
    }


def _task(case: Case, config: ESENConfig, sizes: Sizes, options: argparse.Namespace, allocator: str) -> dict[str, Any]:
    names = ("num_layers", "lmax", "mmax", "sphere_channels", "hidden_channels", "edge_channels")
    published = {name: getattr(config, name) for name in (*names, "num_distance_basis", "norm_type", "use_envelope")}
    return {
        "threads": options.threads,
        "repeats": options.repeats,
        "device": options.device,
        "dtype": case.dtype,
        "memory_bytes": case.memory_bytes,
        "limit_bytes": _memory_limit() if options.device == "cpu" else 0,
        "profile": case.name == PROFILED and (allocator == "tuned" or options.device != "cpu"),
        "sizes": asdict(sizes),
        "options": {**published, "cutoff": config.cutoff_angstrom, "direct_forces": False},
    }


def _memory_limit() -> float:
    """Of address space: an implementation that does not fit is to say so, not to drive the machine into the ground."""
    text = Path("/proc/meminfo").read_text()
    available = re.search(r"MemAvailable:\s+(\d+) kB", text)
    assert available is not None, "/proc/meminfo has no MemAvailable: a kernel older than 3.14"
    return 0.85 * int(available[1]) * 1024 + 4e9  # libraries that are mapped and mostly never read


def write_weights(folder: Path, config: ESENConfig) -> None:
    """Random weights: a native checkpoint, and the same under published names."""
    torch.manual_seed(0)
    network = ESEN(config)
    save(folder / "native.safetensors", Checkpoint(network, 1.0, {}, ELEMENTS))
    published = {}
    for name, value in network.state_dict().items():
        prefix = "output_heads.energy_and_forces." if name.startswith("energy_block.") else "backbone."
        published[prefix + name] = value
    torch.save(published, folder / "published.pt")


def run(
    implementation: str,
    python: Path,
    folder: Path,
    allocator: str,
    options: argparse.Namespace,
    worker: str = "esen_speed_worker.py",
) -> dict[str, Any]:
    """What the worker's process prints; a reference that fails says why, one line."""
    if not python.exists():
        return {"error": f"no environment at {python.parent.parent}: run benchmarks/reference_env.sh"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    # Threads that wait sleep: spinning ones count as CPU time, and on a shared machine cost far more than they save.
    settings = {"OMP_NUM_THREADS": str(options.threads), "OMP_WAIT_POLICY": "passive", "PYTHONWARNINGS": "ignore"}
    command = [str(python), str(HERE / worker), str(folder), implementation]
    done = subprocess.run(
        command, env={**inherited, **settings, **ALLOCATORS[allocator]}, capture_output=True, text=True
    )
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    last = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
    if implementation == OURS:
        raise SystemExit(done.stderr)
    return {"error": last[0]}


def exact_result(folder: Path, atoms: Atoms) -> Evaluation:
    """Of the same weights in float64, by this package."""
    return NetworkForceField(load(folder / "native.safetensors"), dtype="float64").evaluate([atoms])[0]


def errors(folder: Path, implementation: str, exact: Evaluation, case: Case) -> dict[str, float]:
    """Largest errors of energy, forces and stress, relative to their largest component; large ones end the run."""
    result = np.load(folder / f"{implementation}.npz")
    found = {}
    for name in ("energy", "forces", "stress"):
        expected = np.asarray(getattr(exact, name))
        found[f"{name}_error"] = float(np.abs(result[name] - expected).max() / np.abs(expected).max())
    if not max(found.values()) < AGREEMENT[case.dtype]:
        raise SystemExit(f"{case.name}: {implementation} computes something else than float64 does: {found}")
    return found


def _line(row: dict[str, Any]) -> str:
    """A row for people."""
    names = ("model", "structure", "atoms", "dtype", "allocator")
    parts = [" ".join(str(row[name]) for name in names)]
    parts.append(f"{row['seconds']:.3g} s, {row['cpu_seconds']:.3g} CPU s, {row['peak_mb']:.0f} MB")
    parts.append(f"{row['ratio_floor']:.2f} of the floor")
    for name, answer in row["reference"].items():
        ratios = [f"{row[kind].get(name, 0):.2f}" for kind in ("ratio_cpu", "ratio_wall")]
        parts.append(f"{name}: " + answer.get("error", "{} in CPU time, {} in wall time".format(*ratios)))
    return "; ".join(parts)


def scaling(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How cost grows with the number of atoms (1: linear), the neighbour list's share, the peak: for each allocator and
    memory setting, because cost rises by a step where messages begin to be computed twice."""
    result: dict[str, Any] = {}
    for setting in dict.fromkeys((row["allocator"], row["memory_bytes"]) for row in rows):
        of_it = [row for row in rows if (row["allocator"], row["memory_bytes"]) == setting]
        allocator = setting[0] if setting[1] is None else f"{setting[0]}, {setting[1] / 1e9:g} GB"
        fitted = [row for row in of_it if row["atoms"] <= 8000]
        logs = {name: np.log([row[name] for row in fitted]) for name in ("atoms", "cpu_seconds", "seconds")}
        result[allocator] = {
            "atoms": [row["atoms"] for row in of_it],
            "peak_mb": [row["peak_mb"] for row in of_it],
            "neighbor_list_share": [row["neighbor_list_cpu_seconds"] / row["cpu_seconds"] for row in of_it],
        }
        if len(fitted) > 1:
            for name in ("cpu_seconds", "seconds"):
                result[allocator][f"exponent_{name}"] = float(np.polyfit(logs["atoms"], logs[name], 1)[0])
    return result


def _output(options: argparse.Namespace) -> Path | None:
    if options.output or options.smoke:
        return options.output
    kind = "esen_speed_scaling" if options.scaling else "esen_speed"
    slug = re.sub(r"\W+", "_", _device_name(options.device)).strip("_").lower()
    return HERE / "results" / f"{kind}_{slug}.json"


def _device_name(device: str) -> str:
    return "cpu" if device == "cpu" else torch.cuda.get_device_name(device)


def _cpu_name() -> str:
    """Model of the processor, where the system tells."""
    information = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", information.read_text()) if information.exists() else None
    return found[1] if found else platform.processor()


if __name__ == "__main__":
    main()
