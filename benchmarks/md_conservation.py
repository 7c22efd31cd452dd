"""Energy conservation of the packaged force fields, and what batches of trajectories cost.

    python benchmarks/md_conservation.py conservation   # 10 ps at constant energy, three time steps
    python benchmarks/md_conservation.py batches        # 32 systems at once, one by one, and by ASE

Results are added to benchmarks/results/md_conservation.json run by run; runs that are there are not repeated. An
interrupted trajectory continues from files beside it, which its end removes.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.md.verlet import VelocityVerlet

from esen_flows.errors import EsenFlowsError
from esen_flows.files import written_whole
from esen_flows.forcefield.ase_calculator import ForceFieldCalculator
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.conservation.nve import step_dependence
from esen_flows.physics.md.dynamics import molecular_dynamics, molecular_dynamics_many
from esen_flows.physics.md.start import start_of_dynamics
from esen_flows.schemas.md import MDProtocol
from esen_flows.schemas.nve import EnergyDrift

RESULTS = Path(__file__).parent / "results" / "md_conservation.json"
SI, NACL = bulk("Si", cubic=True), bulk("NaCl", "rocksalt", a=5.64, cubic=True)


class Pieces:
    """A checkpoint in numbered files, written every minute."""

    def __init__(self, name: str) -> None:
        self.stem, self.written = RESULTS.with_name(f".{name}"), time.monotonic()

    def load(self) -> list[np.ndarray]:
        return [np.load(path) for path in self.files()]

    def files(self) -> list[Path]:
        return sorted(self.stem.parent.glob(f"{self.stem.name}.*.npy"))

    def due(self, n_bytes: int) -> bool:
        return time.monotonic() - self.written > 60.0

    def append(self, piece: np.ndarray) -> bool:
        np.save(self.stem.with_name(f"{self.stem.name}.{len(self.files()):04d}.npy"), piece)
        self.written = time.monotonic()
        return True


def results() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def add(name: str, result: dict[str, Any]) -> None:
    content = dict(sorted((results() | {name: result}).items()))
    with written_whole(RESULTS) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
    print(name, json.dumps(result))


@dataclass(frozen=True)
class Run:
    """One trajectory at constant energy."""

    atoms: Atoms
    kelvin: float
    ps: float
    step_fs: float

    def name(self, model: str) -> str:
        return f"{model} {self.atoms.get_chemical_formula()} {self.kelvin:g} K {self.ps:g} ps {self.step_fs:g} fs"

    @property
    def protocol(self) -> MDProtocol:
        return MDProtocol(
            ensemble="nve", n_steps=round(1000 * self.ps / self.step_fs), time_step=self.step_fs,
            temperature=self.kelvin, traj_interval=5,
        )  # fmt: skip


def run(model: str, *runs: Run) -> None:
    """Trajectories in one batch, without those that are there already; their statistics."""
    left = [one for one in runs if one.name(model) not in results()]
    if not left:
        return
    pieces = [Pieces(one.name(model).replace(" ", "_")) for one in left]
    outcomes = molecular_dynamics_many(
        [one.atoms for one in left], load_force_field(model), [one.protocol for one in left],
        checkpoints=lambda index: pieces[index],
    )  # fmt: skip
    for index, outcome in outcomes:
        name = left[index].name(model)
        if isinstance(outcome, EsenFlowsError):
            add(name, {"failure": f"{type(outcome).__name__}: {outcome}"})
        else:
            assert outcome.drift is not None  # there are hundreds of frames
            kelvin = outcome.summary()["mean_temperature_kelvin"]
            add(name, outcome.drift.model_dump() | {"mean_temperature_kelvin": kelvin})
        for path in pieces[index].files():
            path.unlink()


def drift_of(name: str) -> EnergyDrift:
    return EnergyDrift(**{key: results()[name][key] for key in EnergyDrift.model_fields})


def conservation() -> None:
    run("esen_silicon", *(Run(SI, kelvin, 10.0, 4.0) for kelvin in (554.0, 2100.0)))
    run("esen_nano", *(Run(atoms, kelvin, 10.0, 4.0) for kelvin in (600.0, 1340.0) for atoms in (SI, NACL)))
    steps = [Run(SI, 554.0, 2.0, step) for step in (4.0, 2.0, 1.0)]
    run("esen_silicon", *steps)
    drifts = [drift_of(one.name("esen_silicon")) for one in steps]
    add("three steps of esen_silicon, Si8 554 K 2 ps", step_dependence((4.0, 2.0, 1.0), drifts).model_dump())
    large = SI * (2, 2, 2)
    run("esen_silicon", *(Run(large, kelvin, 2.0, 4.0) for kelvin in (554.0, 2100.0)))


def batches() -> None:
    """100 steps of 32 primitive cells of silicon, a seed each: largest differences, and CPU times of one run each."""
    force_field, steps = load_force_field("esen_silicon"), 100
    dice = np.random.default_rng(0)
    structures = [bulk("Si") for _ in range(32)]
    for atoms in structures:
        atoms.rattle(0.05, rng=dice)
    protocols = [
        MDProtocol(ensemble="nve", n_steps=steps, time_step=2.0, temperature=600.0, mb_velocity_seed=seed)
        for seed in range(32)
    ]

    def together() -> list[np.ndarray]:
        outcomes = dict(molecular_dynamics_many(structures, force_field, protocols))
        return [outcomes[index].structure.positions_angstrom for index in range(32)]

    def alone() -> list[np.ndarray]:
        pairs = zip(structures, protocols, strict=True)
        return [molecular_dynamics(atoms, force_field, one).structure.positions_angstrom for atoms, one in pairs]

    def by_ase() -> list[np.ndarray]:
        found = []
        for atoms, protocol in zip(structures, protocols, strict=True):
            start = start_of_dynamics(atoms, protocol)
            start.calc = ForceFieldCalculator(force_field)
            VelocityVerlet(start, 2.0 * units.fs).run(steps)
            found.append(start.positions)
        return found

    force_field.evaluate(structures)  # so that its first call is not counted
    positions, seconds = {}, {}
    for name, way in (("batch", together), ("one by one", alone), ("ASE", by_ase)):
        began = time.process_time()
        positions[name] = np.array(way())
        seconds[name] = round(time.process_time() - began, 1)
    apart = {name: float(np.abs(found - positions["batch"]).max()) for name, found in positions.items()}
    add(
        "32 x Si2, esen_silicon, 100 steps",
        {"cpu_seconds": seconds, "largest_difference_angstrom": apart, "threads": 1},
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("conservation", "batches"))
    {"conservation": conservation, "batches": batches}[parser.parse_args().what]()
