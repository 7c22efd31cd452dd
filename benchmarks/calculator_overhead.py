"""Cost of a child process: a calculator that computes nothing, in this process and in a child.

    python benchmarks/calculator_overhead.py

writes benchmarks/results/calculator_overhead.json. Wall time is the shortest of 100
repetitions and CPU time their mean, because other work shares the machine.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from calculators.null_calculator import NullCalculator

from esen_flows.forcefield.contract import Declaration, ForceField
from esen_flows.forcefield.third_party import calculator_child
from esen_flows.forcefield.third_party.any_ase import AseForceField
from esen_flows.forcefield.third_party.calculator import CalculatorForceField
from esen_flows.forcefield.third_party.calculator_process import CalculatorProcess

HERE = Path(__file__).resolve().parent
REPETITIONS = 100
COUNTS = (1, 64)


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process, by the kernel's nanosecond counters."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return 1e-9 * sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def cost(force_field: ForceField, structures: list[Atoms], count: int, pids: list[int]) -> tuple[float, float]:
    """Shortest wall time and mean CPU time of a call, in seconds."""
    times, before = [], sum(map(cpu_seconds, pids))
    for repetition in range(REPETITIONS):
        first = repetition * count % (len(structures) - count + 1)  # ASE answers the same structure from its cache
        batch = structures[first : first + count]
        begin = time.perf_counter()
        force_field.evaluate(batch)
        times.append(time.perf_counter() - begin)
    return min(times), (sum(map(cpu_seconds, pids)) - before) / REPETITIONS


def main() -> None:
    declaration = Declaration(True, "O3", False, None, "float64")
    recipe = {
        "build": "null_calculator:NullCalculator",
        "package": "null_calculator",
        "arguments": {},
        "paths": [str(HERE / "calculators")],
        "expected_version": "1.0",
        "outside": False,
    }
    process = CalculatorProcess(
        [sys.executable, "-I", calculator_child.__file__],
        recipe,
        environment=dict(os.environ),
        label="null",
        time_limit_seconds=60.0,
    )
    apart = CalculatorForceField(process, key="null", label="null", declaration=declaration)
    here = AseForceField(NullCalculator(), key="null", label="null", declaration=declaration)
    apart.process.description()  # starts the child
    rng = np.random.default_rng(0)
    rows = []
    for atoms, cell in ((2, bulk("Si")), (64, bulk("Si", cubic=True).repeat(2))):
        structures = [cell.copy() for _ in range(3 * max(COUNTS) + 1)]
        for structure in structures:  # the same structure again would be answered from ASE's cache
            structure.positions += rng.normal(scale=0.01, size=(len(structure), 3))
        for count in COUNTS:
            wall_here, cpu_here = cost(here, structures, count, [os.getpid()])
            wall_apart, cpu_apart = cost(apart, structures, count, [os.getpid(), apart.process.pid])
            row = {"atoms": atoms, "structures": count, "wall_here": wall_here, "wall_child": wall_apart}
            rows.append({**row, "cpu_here": cpu_here, "cpu_child": cpu_apart})
            print(rows[-1], flush=True)
    found = {
        "seconds_per_call": rows,
        "wall_overhead_of_one_structure_microseconds": {
            row["atoms"]: 1e6 * (row["wall_child"] - row["wall_here"]) for row in rows if row["structures"] == 1
        },
        "cpu_overhead_per_further_structure_microseconds": {
            few["atoms"]: 1e6
            * (many["cpu_child"] - many["cpu_here"] - few["cpu_child"] + few["cpu_here"])
            / (max(COUNTS) - 1)
            for few, many in zip(rows[::2], rows[1::2], strict=True)
        },
        "load_average": os.getloadavg(),
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
    }
    print(json.dumps(found, indent=1))
    (HERE / "results" / "calculator_overhead.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
