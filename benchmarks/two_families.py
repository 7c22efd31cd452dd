"""The edge transformer pet_nano beside esen_nano: errors, time, dependence on orientation, dynamics with both heads.

    python benchmarks/two_families.py errors        # on structures that no model was trained on, both heads
    python benchmarks/two_families.py speed         # CPU time per atom and step on one thread, in turns
    python benchmarks/two_families.py orientation   # spread of energies and forces over rotations and mirror images
    python benchmarks/two_families.py dynamics_si   # constant energy with conservative, direct and both forces
    python benchmarks/two_families.py dynamics_nacl
    python benchmarks/two_families.py kappa         # of silicon, before and after the symmetry layer

Structures are those of benchmarks/data/unseen.xyz.xz. Held-out shares of the training data would not do: their draw
depends on the labels, so that one model's held-out structures are among those that the other one was trained on. Each
part is added to benchmarks/results/two_families.json, and not measured again for the same models. Times are CPU times,
because other work may run beside.
"""

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

from esen_flows.data.importing import read_dataset
from esen_flows.errors import EsenFlowsError
from esen_flows.files import written_whole
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.direct import DirectForces
from esen_flows.forcefield.load import load_force_field
from esen_flows.forcefield.rotations import random_rotations
from esen_flows.physics.lattice.conductivity import conductivity
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.physics.md.dynamics import molecular_dynamics
from esen_flows.physics.relax import relax
from esen_flows.schemas.md import MDProtocol
from esen_flows.schemas.protocols import (
    ConductivityProtocol,
    DisplacementProtocol,
    RelaxProtocol,
    TransportProtocol,
)
from esen_flows.training.evaluate import evaluate_dataset
from esen_flows.version import __version__

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "two_families.json"
UNSEEN = HERE / "data" / "unseen.xyz.xz"
ERRORS = (
    "frames", "energy_mae_mev_per_atom", "force_mae_mev_per_angstrom", "force_rmse_mev_per_angstrom",
    "force_rms_mev_per_angstrom", "stress_mae_mev_per_angstrom3",
)  # fmt: skip
REPEATS = 9
STEP_FS, LONG, PS = 0.5, 8, 1.5  # the recipe of arXiv 2601.16195: conservative forces every 4 fs
SYSTEMS = {"Si": bulk("Si", cubic=True) * 2, "NaCl": bulk("NaCl", "rocksalt", a=5.69, cubic=True) * 2}

AVERAGES = (
    ("as it is", "as_is", None),
    ("inversion", "average", None),
    ("projected", "as_is", "project"),
    ("octahedral with inversion, projected", "as_is", "project+octahedral+inversion"),
)


def models(pet: str, dtype: str = "float64") -> dict[str, ForceField]:
    """The three kinds of forces that are compared."""
    esen, both = load_force_field("esen_nano", dtype=dtype), load_force_field(pet, dtype=dtype)
    return {"esen_nano": esen, "pet_nano": both, "pet_nano, direct": DirectForces(both)}


def errors(pet: str) -> dict[str, Any]:
    """Mean errors over all structures, and of the forces of each group."""
    data = read_dataset(UNSEEN)
    found = {}
    for name, force_field in models(pet).items():
        by_group = evaluate_dataset(force_field, data)
        forces = {group: values["force_mae_mev_per_angstrom"] for group, values in by_group.items() if group != "all"}
        found[name] = {key: by_group["all"][key] for key in ERRORS} | {"force_mae_by_group": forces}
    return found


def speed(pet: str) -> dict[str, Any]:
    """CPU microseconds per atom and force call, the models in turns: medians and quartiles."""
    found: dict[str, Any] = {"repeats": REPEATS, "threads": 1}
    for dtype in ("float32", "float64"):
        chosen = models(pet, dtype)
        for cells in (2, 4):
            atoms = bulk("Si", cubic=True) * cells
            atoms.rattle(0.03, seed=1)
            times: dict[str, list[float]] = {name: [] for name in chosen}
            for turn in range(REPEATS + 2):
                atoms.positions += 0.001 * np.random.default_rng(turn).normal(size=atoms.positions.shape)
                for name, force_field in chosen.items():
                    began = time.process_time()
                    force_field.evaluate([atoms])
                    if turn >= 2:  # tables of neighbours and memory are there by then
                        times[name].append(1e6 * (time.process_time() - began) / len(atoms))
            found[f"{dtype}, {len(atoms)} atoms of Si"] = {
                name: [round(float(value), 1) for value in np.percentile(each, (25, 50, 75))]
                for name, each in times.items()
            }
    return found


def orientation(pet: str) -> dict[str, Any]:
    """Root mean square deviation from the mean over 16 rotations, half of them improper, of 40 structures."""
    data, rotations = read_dataset(UNSEEN), random_rotations(16, np.random.default_rng(0)).matrices
    rotations[1::2] *= -1
    chosen = np.random.default_rng(0).choice(len(data), 40, replace=False)
    found = {}
    for name, force_field in models(pet).items():
        energies, forces = [], []
        for index in chosen:
            atoms = data[int(index)].atoms
            turned = [
                Atoms(atoms.numbers, positions=atoms.positions @ one.T, cell=atoms.cell.array @ one.T, pbc=atoms.pbc)
                for one in rotations
            ]
            results = force_field.evaluate(turned)
            energies.append(np.var([result.energy / len(atoms) for result in results]))
            back = np.array([result.forces @ one for result, one in zip(results, rotations, strict=True)])
            forces.append(np.mean(np.var(back, axis=0)))
        found[name] = {
            "energy_mev_per_atom": 1000 * float(np.sqrt(np.mean(energies))),
            "force_component_mev_per_angstrom": 1000 * float(np.sqrt(np.mean(forces))),
        }
    return found | {"structures": len(chosen), "rotations": len(rotations)}


def dynamics(name: str, pet: str) -> dict[str, Any]:
    """Drift and CPU time of trajectories at constant energy, by the kind of their forces."""
    force_field, atoms, runs = load_force_field(pet), SYSTEMS[name], {}
    for forces in ("conservative", "direct", f"mts({LONG})"):
        protocol = MDProtocol(
            ensemble="nve", n_steps=round(1000 * PS / STEP_FS), time_step=STEP_FS, temperature=600.0,
            traj_interval=LONG, forces=forces,
        )  # fmt: skip
        began = time.process_time()
        output = molecular_dynamics(atoms, force_field, protocol)
        seconds = time.process_time() - began
        assert output.drift is not None  # there are hundreds of frames
        runs[forces] = {
            "drift_mev_per_atom_ps": output.drift.slope_mev_per_atom_ps,
            "interval_mev_per_atom_ps": output.drift.slope_interval_mev_per_atom_ps,
            "mean_temperature_kelvin": output.summary()["mean_temperature_kelvin"],
            "cpu_seconds": round(seconds, 1),
        }
        print(forces, json.dumps(runs[forces]), flush=True)
    conservative, split = runs["conservative"], runs[f"mts({LONG})"]
    allowed = max(abs(conservative["drift_mev_per_atom_ps"]), conservative["interval_mev_per_atom_ps"])
    return {
        "system": f"{name}, {len(atoms)} atoms, 600 K, {PS:g} ps of {STEP_FS:g} fs, float64",
        **runs,
        "time_of_mts_over_conservative": split["cpu_seconds"] / conservative["cpu_seconds"],
        "drift_of_mts_over_allowed": abs(split["drift_mev_per_atom_ps"]) / allowed,
    }


def kappa(pet: str) -> dict[str, Any]:
    """RTA conductivity of silicon at 300 K by what is averaged; 64 atoms, 0.03 Angstrom, 11 x 11 x 11."""
    found: dict[str, Any] = {}
    for model in ("esen_nano", pet):
        force_field, rows = load_force_field(model), {}
        for name, parity, symmetry in AVERAGES[: 3 if model == "esen_nano" else None]:  # it is exact under rotations
            began, calls = time.process_time(), force_field.force_evaluations
            same = {"parity": parity, "force_symmetry": symmetry}
            start = relax(
                bulk("Si", a=5.43, cubic=True),
                force_field,
                RelaxProtocol(fmax_ev_per_angstrom=1e-4, symmetry="lock", **same),
            )
            displaced = DisplacementProtocol(
                order=3, displacement_angstrom=0.03, fc2_supercell=(2, 2, 2), fc3_supercell=(2, 2, 2), **same
            )
            forces = displaced_forces(start.structure.to_atoms(), force_field, displaced)
            protocol = TransportProtocol.of(ConductivityProtocol(mesh=(11, 11, 11), temperatures_kelvin=(300.0,)))
            rows[name] = {
                "lattice_constant_angstrom": float(start.structure.to_atoms().cell.lengths().mean()),
                "force_evaluations": force_field.force_evaluations - calls,
            }
            try:
                result = conductivity(forces, protocol).methods["rta"]
                rows[name]["kappa_xx_yy_zz_w_per_m_k"] = result.kappa_w_per_m_k[0, :3].tolist()
            except EsenFlowsError as error:
                rows[name]["failure"] = f"{type(error).__name__}: {error}"
            rows[name]["cpu_seconds"] = round(time.process_time() - began, 1)
            print(model, name, json.dumps(rows[name]), flush=True)
        found["esen_nano" if model == "esen_nano" else "pet_nano"] = rows
    return found


def main() -> None:
    """Measure one part, and add it to the results."""
    parts = {"errors": errors, "speed": speed, "orientation": orientation, "kappa": kappa}
    parts |= {f"dynamics_{name.lower()}": partial(dynamics, name) for name in SYSTEMS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=parts)
    parser.add_argument("--model", default="pet_nano", help="card or checkpoint of the edge transformer")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    keys = {
        name: load_force_field(model).key for name, model in (("esen_nano", "esen_nano"), ("pet_nano", asked.model))
    }
    if RESULTS.exists() and json.loads(RESULTS.read_text()).get(asked.part, {}).get("model_keys") == keys:
        return
    found = parts[asked.part](asked.model)
    found |= {
        "model_keys": keys,
        "versions": {"esen_flows": __version__, "torch": torch.__version__},
        "load_average": round(os.getloadavg()[0], 1),
    }
    content = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with written_whole(RESULTS) as temporary:
        temporary.write_text(json.dumps(dict(sorted({**content, asked.part: found}.items())), indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
