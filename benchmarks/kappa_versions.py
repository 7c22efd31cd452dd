"""The same forces through phono3py 4.8 and 3.30: what a published conductivity owes to the version.

    benchmarks/phono3py330_env.sh /tmp/phono3py330
    python benchmarks/kappa_versions.py --old /tmp/phono3py330/bin/python --forces /tmp/forces \\
        --structures phononDB-PBE-structures.extxyz

writes benchmarks/results/kappa_versions.json, crystal by crystal and mesh by mesh. Forces: SevenNet-0 in float64,
averaged with the inverse, displacement 0.03 Angstrom, second order in 2x2x2 of the conventional cell (64 atoms),
third order in 2x2x2 of the primitive one (16 atoms, all pairs): enough to compare versions, not converged with the
cell. RTA and Wigner (MS-SMM19 in 3.30, SMM19 in 4.8) at 300 K, isotopes on, boundary 1e6 um, mesh 19^3, as the
leaderboard of PhononDB-103 has it. 4.8 runs twice: with its defaults, and with what esen_flows asks it for (weights
of the tetrahedron method averaged over degenerate bands and over equivalent ways to cut, Gamma's acoustic modes left
out).

What came out: on 19^3 4.8 gives 0.22 (NaCl) and 0.12 % (GaAs) less RTA conductivity than 3.30, 0.23 and 0.13 % less in
all by Wigner's formula, in whatever way it is asked; on 11^3 0.3 to 0.4 %. Coherences alone, a small part, are 4 and
12 % more.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from displacement_parity import PROTOCOL, TWICE_PRIMITIVE, crystal_of

from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.physics.relax import relax
from esen_flows.schemas.lattice_documents import ForcesOutput
from esen_flows.schemas.protocols import DisplacementProtocol

HERE = Path(__file__).parent
FILE = HERE / "results" / "kappa_versions.json"
MODEL = "sevennet_0"
DISPLACEMENT = DisplacementProtocol(
    order=3, displacement_angstrom=0.03, fc2_supercell=(2, 2, 2), fc3_supercell=TWICE_PRIMITIVE
)
QUANTITIES = ("rta", "wigner", "wigner_particle", "wigner_coherence")


def save(forces: ForcesOutput, path: Path) -> None:
    """A force set as arrays and phono3py's own dataset."""
    cell = forces.unitcell
    np.savez(
        path,
        numbers=cell.numbers,
        positions=cell.positions_angstrom,
        cell=cell.cell_angstrom,
        primitive_matrix=forces.primitive_matrix,
        fc2_matrix=forces.supercell_matrix_fc2,
        fc3_matrix=forces.supercell_matrix_fc3,
        fc2_dataset=json.dumps(forces.displacements_fc2),
        fc3_dataset=json.dumps(forces.displacements_fc3),
        fc2_forces=forces.forces_fc2,
        fc3_forces=forces.forces_fc3,
    )


def difference(new: dict[str, Any], old: dict[str, Any]) -> dict[str, float]:
    """Relative differences of the means of xx, yy and zz."""
    return {name: float(np.mean(new[name]) / np.mean(old[name]) - 1) for name in QUANTITIES}


def force_file(name: str, arguments: argparse.Namespace) -> Path:
    """The forces of a crystal, computed unless they are there."""
    path: Path = arguments.forces / f"{name}.npz"
    if not path.exists():
        force_field = load_force_field(MODEL, dtype="float64")
        relaxing = PROTOCOL.relax.model_copy(update={"parity": "average"})
        atoms = relax(crystal_of(name, arguments.structures), force_field, relaxing).structure.to_atoms()
        arguments.forces.mkdir(parents=True, exist_ok=True)
        save(displaced_forces(atoms, force_field, DISPLACEMENT), path)
    return path


def compare(source: Path, mesh: int, old: str) -> dict[str, Any]:
    """Both versions on one mesh."""
    found = {}
    for version, python in (("new", sys.executable), ("old", old)):
        target = source.with_suffix(f".{version}.json")
        worker = [python, "-W", "ignore", str(HERE / "kappa_versions_worker.py"), source, target, str(mesh)]
        subprocess.run(list(map(str, worker)), check=True)
        found[version] = json.loads(target.read_text())
    published = found["old"]["defaults"]
    return {
        "mesh": mesh,
        "phono3py_3_30": found["old"],
        "phono3py_4_8": found["new"],
        "relative_difference_of_4_8": {
            variant: difference(found["new"][variant], published) for variant in ("defaults", "esen_flows")
        },
    }


def main() -> None:
    """Compare crystal by crystal and mesh by mesh; what is there is not computed again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", required=True, help="python of an environment with phono3py 3.30.0")
    parser.add_argument("--structures", type=Path, required=True, help="phononDB-PBE-structures.extxyz")
    parser.add_argument("--forces", type=Path, required=True, help="folder that keeps the forces")
    parser.add_argument("--crystals", nargs="+", default=["NaCl", "GaAs"], help="cubic members of PhononDB-103")
    parser.add_argument("--meshes", type=int, nargs="+", default=[11, 19])
    parser.add_argument("--output", type=Path, default=FILE)
    arguments = parser.parse_args()
    rows = json.loads(arguments.output.read_text())["rows"] if arguments.output.exists() else []
    known = {(row["crystal"], row["mesh"]) for row in rows}
    for name in arguments.crystals:
        for mesh in arguments.meshes:
            if (name, mesh) in known:
                continue
            rows.append({"crystal": name, "model": MODEL, **compare(force_file(name, arguments), mesh, arguments.old)})
            arguments.output.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
            print(name, mesh, rows[-1]["relative_difference_of_4_8"], flush=True)


if __name__ == "__main__":
    main()
