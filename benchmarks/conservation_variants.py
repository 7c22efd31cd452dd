"""The variants of table 1 of the eSEN paper at laptop size: test errors, and energy conservation beside them.

    esen-flows label models/esen_nano/data.yaml --output nano.xyz      # by SevenNet-l3i5: pip install -e ".[sevennet]"
    python benchmarks/conservation_variants.py train nano.xyz --folder variants
    python benchmarks/conservation_variants.py measure nano.xyz --folder variants
    python benchmarks/conservation_variants.py speed nano.xyz --folder variants      # on a quiet machine
    python benchmarks/conservation_variants.py draw

The labels are in benchmarks/data/nano.xyz.xz too. All variants see the same structures of four crystals for the same
number of epochs, from random weights; each differs from the default in what its name says, direct forces in the weight
of the stress too, and grids in their activations. An interrupted run continues; rows that are in
benchmarks/results/conservation_variants.json are not measured again. Bands are those of MgO from supercells of 64 atoms
without symmetry in the force constants, so that what the forces do is seen. Speeds are those of force calls whose
neighbours are not searched again.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from matplotlib import pyplot as plt
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from esen_flows.cli.machine import tune_allocator
from esen_flows.data.batch_state import BatchState
from esen_flows.data.dataset import Dataset, subset
from esen_flows.data.importing import read_dataset
from esen_flows.data.splits import split_by_material
from esen_flows.errors import EsenFlowsError
from esen_flows.files import written_whole
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.conservation.measurements import measure
from esen_flows.physics.lattice.phonon import band_path
from esen_flows.physics.md.dynamics import molecular_dynamics_many
from esen_flows.schemas.audit import MeasurementsProtocol
from esen_flows.schemas.md import MDProtocol
from esen_flows.schemas.nve import EnergyDrift
from esen_flows.training.config import TrainingConfig, config_from_dict
from esen_flows.training.evaluate import evaluate_dataset
from esen_flows.training.train import CHECKPOINT_NAME, train

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "conservation_variants.json"
FIGURE = ROOT / "docs" / "figures" / "conservation_variants.png"
BANDS_FIGURE = FIGURE.with_name("conservation_bands.png")
CRYSTALS = ({"C"}, {"Na", "Cl"}, {"Mg", "O"}, {"Ga", "As"})
# The network and the schedule of models/esen_nano/finetune.yaml, with the paper's 10 radial functions.
BASE: dict[str, Any] = {
    "num_layers": 2, "lmax": 2, "mmax": 2, "sphere_channels": 32, "hidden_channels": 32, "edge_channels": 32,
    "num_distance_basis": 10, "cutoff_angstrom": 5.0,
    "epochs": 24, "validate_every_epochs": 8, "edges_per_batch": 3000, "learning_rate": 0.003, "betas": [0.9, 0.98],
    "weight_decay": 0.001, "warmup_steps": 100, "final_factor": 0.01, "clip_norm": 20.0, "ema_decay": 0.99,
    "loss": "absolute", "energy_weight": 20.0, "force_weight": 20.0, "stress_weight": 50.0, "random_inversion": True,
    "initial_head_factor": 0.1, "seed": 1,
}  # fmt: skip
DISCRETE = {"act_type": "s2", "mlp_type": "grid"}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "direct forces": {"direct_forces": True, "direct_stress": "source_target", "stress_weight": 5.0},
    "20 neighbours": {"max_neighbors": 20},
    "no envelope": {"use_envelope": False},
    "512 radial functions": {"num_distance_basis": 512},
    "Bessel functions": {"distance_function": "bessel"},
    **{f"grid of {points}": {**DISCRETE, "grid_resolution": points} for points in (6, 10, 14)},
    "default, seed 2": {"seed": 2},
    "default, seed 3": {"seed": 3},
    "width 16": {"sphere_channels": 16, "hidden_channels": 16, "edge_channels": 16},
}
# Conventional cells, whose longest free path at these temperatures stays inside of what the data show.
SYSTEMS: dict[str, Atoms] = {
    "NaCl": bulk("NaCl", "rocksalt", a=5.69, cubic=True),
    "MgO": bulk("MgO", "rocksalt", a=4.25, cubic=True),
    "C": bulk("C", "diamond", a=3.571, cubic=True),
    "GaAs": bulk("GaAs", "zincblende", a=5.753, cubic=True),
}
KELVIN, STEP_FS, PICOSECONDS = 600.0, 2.0, 5.0
BAND_DISPLACEMENTS_ANGSTROM, BAND_POINTS = (0.01, 0.2), 41
DRAWN_BANDS = ("default", "direct forces")


def config(name: str) -> TrainingConfig:
    return config_from_dict({**BASE, **VARIANTS[name]}, name)


def read(path: Path) -> tuple[Dataset, Dataset]:
    """Training and held-out structures of the four crystals."""
    everything = read_dataset(path)
    chosen = [i for i, item in enumerate(everything) if set(item.atoms.get_chemical_symbols()) in CRYSTALS]
    dataset = subset(everything, chosen)
    return split_by_material(dataset, 0.15, seed=0).apply(dataset)


def folder_of(folder: Path, name: str) -> Path:
    return folder / name.replace(" ", "_").replace(",", "")


def train_all(data: Path, folder: Path, only: list[str]) -> None:
    training, validation = read(data)
    print(f"{len(training)} structures to train on, {len(validation)} held out")
    for name in only:
        path = folder_of(folder, name)
        if (path / "seconds").exists():
            continue
        begin = time.process_time()
        train(config(name), training, validation, path)
        (path / "seconds").write_text(f"{time.process_time() - begin:.0f}")
        print(name, (path / "seconds").read_text(), "CPU seconds", flush=True)


def drifts(force_field: ForceField) -> dict[str, Any]:
    """Statistics of the total energy of each system, or why there are none."""
    protocol = MDProtocol(
        ensemble="nve", n_steps=round(1000 * PICOSECONDS / STEP_FS), time_step=STEP_FS, temperature=KELVIN,
        traj_interval=10,
    )  # fmt: skip
    outcomes = molecular_dynamics_many(list(SYSTEMS.values()), force_field, [protocol] * len(SYSTEMS))
    names = list(SYSTEMS)
    found: dict[str, Any] = {}
    for index, outcome in outcomes:
        if isinstance(outcome, EsenFlowsError):
            found[names[index]] = f"{type(outcome).__name__}: {outcome}"
        else:
            assert outcome.drift is not None  # there are hundreds of frames
            found[names[index]] = outcome.drift.model_dump()
    return {name: found[name] for name in names}


def conservation(force_field: ForceField) -> dict[str, float]:
    """The largest value of each measure of an audit over two crystals."""
    output = measure(force_field, MeasurementsProtocol(systems=("NaCl", "MgO"), displacements_angstrom=(0.01, 0.2)))
    values: dict[str, list[float]] = {}
    for row in output.measurements:
        values.setdefault(row["measure"], []).append(abs(row["value"]))
    return {name: max(found) for name, found in values.items()}


def measure_all(data: Path, folder: Path, only: list[str]) -> None:
    _, validation = read(data)
    for name in only:
        path = folder_of(folder, name)
        rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        if name in rows or not (path / "seconds").exists():
            continue
        force_field = load_force_field(str(path / CHECKPOINT_NAME), dtype="float64")
        errors = evaluate_dataset(force_field, validation)["all"]
        row: dict[str, Any] = {"changed": VARIANTS[name], "training_cpu_seconds": int((path / "seconds").read_text())}
        row |= {"test": errors, "conservation": conservation(force_field)}
        if name in DRAWN_BANDS:
            row["bands"] = bands(force_field)
        begin = time.process_time()
        row |= {"drift": drifts(force_field), "drift_cpu_seconds": round(time.process_time() - begin, 1)}
        save(rows | {name: row})
        print(name, json.dumps(errors), flush=True)


def bands(force_field: ForceField) -> dict[str, Any]:
    """Frequencies in THz along the path of MgO, from finite displacements of each length in Angstrom."""
    crystal = bulk("MgO", "rocksalt", a=4.25)
    path = band_path(crystal, BAND_POINTS, 1e-4)
    cell = PhonopyAtoms(
        symbols=crystal.get_chemical_symbols(), cell=crystal.cell.array, scaled_positions=crystal.get_scaled_positions()
    )
    found: dict[str, Any] = {"labels": path.labels}
    for distance in BAND_DISPLACEMENTS_ANGSTROM:
        phonon = Phonopy(cell, supercell_matrix=[[-2, 2, 2], [2, -2, 2], [2, 2, -2]], is_symmetry=False)
        phonon.generate_displacements(distance=distance, is_plusminus=True, is_diagonal=False)
        supercells = [
            Atoms(one.symbols, positions=one.positions, cell=one.cell, pbc=True)
            for one in phonon.supercells_with_displacements
        ]
        phonon.forces = np.array([result.forces for result in force_field.evaluate(supercells)])
        phonon.produce_force_constants()
        frequencies = [np.array(phonon.run_qpoints(segment).frequencies) for segment in path.segments]
        found[str(distance)] = [np.round(segment, 4).tolist() for segment in frequencies]
    return found


def time_calls(folder: Path, only: list[str]) -> None:
    """Molecular dynamics steps a day at 216 atoms of NaCl, float32, one thread; calls of all variants take turns."""
    torch.set_num_threads(1)
    tune_allocator()
    measured = json.loads(RESULTS.read_text())  # the timing is added to their rows
    there = [name for name in only if name in measured and (folder_of(folder, name) / "seconds").exists()]
    atoms = SYSTEMS["NaCl"] * (3, 3, 3)
    states, force_fields = {}, {}
    for name in there:
        force_fields[name] = load_force_field(str(folder_of(folder, name) / CHECKPOINT_NAME), dtype="float32")
        states[name] = BatchState.of([atoms], force_fields[name].device)
    seconds: dict[str, list[float]] = {name: [] for name in there}
    for step in range(8):
        for name in there:
            states[name] = states[name].moved(states[name].positions + 1e-3 * (-1) ** step)
            begin = time.process_time()
            force_fields[name].evaluate_batch(states[name])
            seconds[name].append(time.process_time() - begin)
    rows = json.loads(RESULTS.read_text())
    for name in there:
        rows[name]["seconds_per_step_216_atoms"] = round(median(seconds[name][2:]), 4)
        rows[name]["million_steps_per_day_216_atoms"] = round(0.0864 / median(seconds[name][2:]), 3)
        rows[name]["load_average_of_timing"] = round(os.getloadavg()[0], 2)
    save(rows)


def save(rows: dict[str, Any]) -> None:
    """Write the results, a line for each variant."""
    lines = [f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items()]
    with written_whole(RESULTS) as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def worst(row: dict[str, Any]) -> EnergyDrift | None:
    """Statistics of the system with the largest slope of the total energy; None if a trajectory failed."""
    if any(isinstance(one, str) for one in row["drift"].values()):
        return None
    return max((EnergyDrift(**one) for one in row["drift"].values()), key=lambda one: abs(one.slope_mev_per_atom_ps))


def draw_errors() -> None:
    """Error of the forces against drift and fluctuation of the total energy, one point a variant."""
    rows = json.loads(RESULTS.read_text())
    figure, panels = plt.subplots(1, 2, figsize=(10.0, 4.2), layout="constrained")
    for number, (name, row) in enumerate(rows.items()):
        error, found = row["test"]["force_mae_mev_per_angstrom"], worst(row)
        style: dict[str, Any] = {"color": f"C{number % 10}", "marker": "osD^vPX"[number % 7], "label": name}
        if found is None:
            for axes in panels:
                axes.plot(error, 0.97, transform=axes.get_xaxis_transform(), **{**style, "marker": "x"})
            continue
        slope, interval = abs(found.slope_mev_per_atom_ps), found.slope_interval_mev_per_atom_ps
        lower = min(interval, 0.9 * slope)  # a bar to zero has no end on a logarithmic axis
        panels[0].errorbar(error, slope, [[lower], [interval]], capsize=2, **style)
        largest = max(EnergyDrift(**one).fluctuation_mev_per_atom for one in row["drift"].values())
        panels[1].plot(error, largest, linestyle="none", **style)
    panels[0].axhline(0.5, color="0.5", linestyle=":", label="limit of an audit")
    panels[0].set(yscale="log", ylabel="largest energy drift, 95 % interval (meV/atom/ps)")
    panels[1].set(yscale="log", ylabel="largest fluctuation of the energy (meV/atom)")
    for axes in panels:
        axes.set_xlabel("force MAE, held-out structures (meV/Å)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(FIGURE, dpi=150)


def print_table() -> None:
    """The table of docs/audit.md."""
    heads = ["", "energy MAE (meV/atom)", "force MAE (meV/Å)", "Jacobian asymmetry", "work around loops",
             "jump of forces (eV/Å)", "largest drift (meV/atom/ps)", "largest fluctuation (meV/atom)"]  # fmt: skip
    lines = [heads, ["---"] * len(heads)]
    for name, row in json.loads(RESULTS.read_text()).items():
        test, found, drift = row["test"], row["conservation"], worst(row)
        measures = ("jacobian_asymmetry", "loop_work_relative", "force_jump_ev_per_angstrom")
        cells = [name, f"{test['energy_mae_mev_per_atom']:.1f}", f"{test['force_mae_mev_per_angstrom']:.0f}"]
        cells += [f"{found[measure]:.0e}" for measure in measures]
        if drift is None:
            failed = [system for system, one in row["drift"].items() if isinstance(one, str)]
            cells += [f"failed in {', '.join(failed)}", "-"]
        else:
            slope, interval = drift.slope_mev_per_atom_ps, drift.slope_interval_mev_per_atom_ps
            largest = max(EnergyDrift(**one).fluctuation_mev_per_atom for one in row["drift"].values())
            cells += [f"{slope:.2g} ± {interval:.1g}", f"{largest:.2g}"]
        lines.append(cells)
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))


def draw_bands() -> None:
    """Bands of MgO with conservative and with direct forces, for both displacements."""
    rows = json.loads(RESULTS.read_text())
    figure, panels = plt.subplots(1, 2, figsize=(9.0, 3.8), layout="constrained", sharey=True)
    for axes, name in zip(panels, DRAWN_BANDS, strict=True):
        found = rows[name]["bands"]
        for distance, style in zip(BAND_DISPLACEMENTS_ANGSTROM, ("-", "--"), strict=True):
            for number, segment in enumerate(found[str(distance)]):
                x = number + np.linspace(0, 1, len(segment))
                lines = axes.plot(x, segment, style, color="C0" if style == "-" else "C3", linewidth=1)
            lines[0].set_label(f"{distance} Å")
        starts = [start for start, _ in found["labels"]]
        ends = [end for _, end in found["labels"]]
        jumps = [
            end if end == start else f"{end}|{start}" for end, start in zip(ends, [*starts[1:], ends[-1]], strict=True)
        ]
        axes.set_xticks(range(len(ends) + 1), [starts[0], *jumps])
        axes.set(title=name, xlim=(0, len(ends)))
        axes.axhline(0, color="0.7", linewidth=0.8)
    panels[0].set_ylabel("frequency (THz)")
    panels[0].legend(title="displacement", loc="lower right", ncols=2)
    panels[0].set_ylim(bottom=-4)
    figure.savefig(BANDS_FIGURE, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "measure", "speed", "draw"])
    parser.add_argument("data", nargs="?", type=Path, help="labelled structures: nano.xyz")
    parser.add_argument("--folder", type=Path, default=Path("variants"), help="folder of the trainings")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="variants to run")
    arguments = parser.parse_args()
    if arguments.what == "draw":
        draw_errors()
        draw_bands()
        return print_table()
    if arguments.what == "speed":
        return time_calls(arguments.folder, arguments.only)
    if arguments.data is None:
        parser.error(f"{arguments.what} needs the file of labelled structures")
    run: Callable[..., None] = train_all if arguments.what == "train" else measure_all
    run(arguments.data, arguments.folder, arguments.only)


if __name__ == "__main__":
    main()
