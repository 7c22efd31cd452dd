"""One process of `esen_speed`: load an implementation, time it and the matrix products of the same shapes.

    python esen_speed_worker.py FOLDER IMPLEMENTATION

reads FOLDER/task.json, system.npz and the weights, and prints one line of JSON. A process for each, because the peak of
its memory and its allocator's settings are what is measured. Of this folder, only files without `esen_flows` are
imported at the top: the environments of the reference do not have it.
"""

import json
import os
import platform
import re
import resource
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from esen_speed_floor import Sizes, Timing, floor_call, timed

WARM_UP = {"cpu": 2, "cuda": 5}  # untimed: the first two calls take up to 2.8 times as long
Result = dict[str, np.ndarray]  # energy (), forces (atoms, 3), stress (3, 3), in network units
Call = Callable[[np.ndarray], Result]  # positions (atoms, 3) in Angstrom


def main() -> None:
    """Measure what the task says."""
    folder, implementation = Path(sys.argv[1]), sys.argv[2]
    task = json.loads((folder / "task.json").read_text())
    torch.set_num_threads(task["threads"])
    if task["limit_bytes"]:
        resource.setrlimit(resource.RLIMIT_AS, (int(task["limit_bytes"]),) * 2)
    system = dict(np.load(folder / "system.npz"))
    if implementation == "esen_flows":
        call = our_call(folder, task, system)
    else:
        from reference_model import reference_call

        call = reference_call(implementation, folder, task, system)
    try:
        answer, result = measure(call, task, system)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "memory" not in str(error):
            raise
        print(json.dumps({"error": f"out of memory, limit {task['limit_bytes'] / 1e9:.1f} GB"}))
        return
    np.savez(folder / f"{implementation}.npz", **result)
    print(json.dumps(answer))


def our_call(folder: Path, task: dict[str, Any], system: Result) -> Call:
    """This package, its neighbour list included."""
    from ase import Atoms

    from esen_flows.forcefield.checkpoint import load
    from esen_flows.forcefield.network import NetworkForceField

    memory = {} if task["memory_bytes"] is None else {"memory_bytes": task["memory_bytes"]}
    field = NetworkForceField(load(folder / "native.safetensors"), device=task["device"], dtype=task["dtype"], **memory)
    atoms = Atoms(system["numbers"], positions=system["positions"], cell=system["cell"], pbc=True)

    def call(positions: np.ndarray) -> Result:
        atoms.positions = positions
        evaluation = field.evaluate([atoms])[0]
        return {
            "energy": np.array(evaluation.energy),
            "forces": evaluation.forces,
            "stress": evaluation.stress,
        }

    return call


def measure(call: Call, task: dict[str, Any], system: Result) -> tuple[dict[str, Any], Result]:
    """Medians over calls on moving atoms; the floor is timed between them, so that other work meets both alike."""
    from esen_speed_cases import moved  # needs ase, which all environments have

    device, repeats = task["device"], task["repeats"]
    result = call(moved(system["positions"], 0))
    warm_up = WARM_UP[device.split(":")[0]]
    for index in range(1, warm_up):
        call(moved(system["positions"], index))
    gpu_mb, cpu_mb = gpu_peak_mb(device), cpu_peak_mb()  # before the floor takes its share
    n_atoms, n_edges = len(system["numbers"]), len(system["source"])
    floor = floor_call(Sizes(**task["sizes"]), n_atoms, n_edges, getattr(torch, task["dtype"]), device)
    floor()
    calls: list[Timing] = []
    floors: list[Timing] = []
    for index in range(warm_up, warm_up + repeats):
        positions = moved(system["positions"], index)
        calls.append(timed(lambda positions=positions: call(positions), device))
        floors.append(timed(floor, device))
    answer = {
        **_medians(calls),
        **{f"floor_{name}": value for name, value in _medians(floors).items()},
        "peak_mb": cpu_mb,
        **({} if gpu_mb is None else {"gpu_peak_mb": gpu_mb}),
        "calls": [asdict(timing) for timing in calls],
        "load_average": os.getloadavg(),
        "versions": versions(),
    }
    if task["profile"]:
        answer["profile"] = profile(lambda: call(system["positions"]), device)
    return answer, result


def _medians(timings: list[Timing]) -> dict[str, float]:
    return {name: median(getattr(timing, name) for timing in timings) for name in ("seconds", "cpu_seconds")}


def cpu_peak_mb() -> float:
    """What the process held at most in main memory.

    Not `ru_maxrss`, which counts what the process that started this one held at that moment.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, "/proc/self/status has no VmHWM: not Linux"
    return int(found[1]) * 1024 / 1e6


def gpu_peak_mb(device: str) -> float | None:
    """What the process allocated at most on a GPU."""
    return None if device == "cpu" else torch.cuda.max_memory_allocated(device) / 1e6


def profile(call: Callable[[], object], device: str) -> str:
    """A table of where one call spends its time."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    kinds = [ProfilerActivity.CPU] if device == "cpu" else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with record(activities=kinds) as recorded:
        timed(call, device)
    order = "self_cpu_time_total" if device == "cpu" else "self_cuda_time_total"
    return recorded.key_averages().table(sort_by=order, row_limit=40, max_name_column_width=60)


def versions() -> dict[str, str]:
    """Of what decides the numbers, as far as it is installed here."""
    found = {"python": platform.python_version()}
    for name in ("torch", "numpy", "ase", "vesin", "e3nn", "esen_flows", "fairchem-core"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
