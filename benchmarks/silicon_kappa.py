"""Silicon by any force field: lattice constant, phonons, kappa(displacement) as is and inversion-averaged, DFT frames.

    python benchmarks/silicon_kappa.py esen_silicon sevennet_l3i5 --dft-frames ../shared/data/phono3py/Si-PBE

writes benchmarks/results/silicon_kappa_<model>.json. Protocol: relax (FIRE, fmax 1e-4 eV/Angstrom, FixSymmetry), fc3
2x2x2 (64 atoms), fc2 3x3x3 (216 atoms) of the conventional cell, RTA and Wigner at 300 K, mesh 11^3, no isotopes.
"""

import argparse
import io
import json
import os
import tarfile
import time
from importlib.metadata import version
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.build import bulk

from esen_flows.forcefield.contract import Evaluation, ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.forcefield.symmetrized import with_parity
from esen_flows.physics.lattice.conductivity import conductivity
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.physics.relax import relax
from esen_flows.schemas.keys import atoms_key
from esen_flows.schemas.protocols import ConductivityProtocol, RelaxProtocol, TransportProtocol

RESULTS = Path(__file__).parent / "results"
PROTOCOL = ConductivityProtocol(temperatures_kelvin=(300.0,))


class Remembered(ForceField):
    """A force field that evaluates a structure once: "as is" shares its calls with "averaged"."""

    def __init__(self, inner: ForceField) -> None:
        self.inner, self.known = inner, {}
        self.key, self.label, self.declaration = inner.key, inner.label, inner.declaration

    def evaluate(self, structures: list[Atoms]) -> list[Evaluation]:
        keys = [atoms_key(atoms) for atoms in structures]
        missing = {key: atoms for key, atoms in zip(keys, structures, strict=True) if key not in self.known}
        results = self.inner.evaluate(list(missing.values()))
        self.known.update(zip(missing, results, strict=True))
        self.force_evaluations += len(missing)
        return [self.known[key] for key in keys]


def kappa(force_field: ForceField, relaxed: Atoms, displacement: float, parity: str) -> dict[str, float]:
    """kappa at 300 K in W/m/K by RTA and Wigner, and the highest frequency of the mesh in THz."""
    changes = {"displacement_angstrom": displacement, "parity": parity}
    forces = displaced_forces(relaxed, force_field, PROTOCOL.displacement.model_copy(update=changes))
    output = conductivity(forces, TransportProtocol.of(PROTOCOL))
    means = {name: float(result.kappa_w_per_m_k[0, :3].mean()) for name, result in output.methods.items()}
    return {**means, "max_frequency_thz": output.max_frequency_thz, "min_frequency_thz": output.min_frequency_thz}


def dft_frames(folder: Path) -> list[Atoms]:
    """The VASP runs of phono3py's Si-PBE example (BSD-3), with DFT energy, forces and stress."""
    frames = []
    with tarfile.open(folder / "vasprun_xmls.tar.lzma", "r:xz") as archive:
        for member in sorted(m.name for m in archive if m.name.endswith(".xml")):
            stream = archive.extractfile(member)
            assert stream is not None
            frames.append(ase.io.read(io.StringIO(stream.read().decode()), format="vasp-xml", index=-1))
    return frames


def force_errors(force_field: ForceField, frames: list[Atoms]) -> dict[str, float]:
    """Component RMSE against DFT in meV/Angstrom, and the slope of the forces on DFT's."""
    results = with_parity(force_field, "average").evaluate(frames)
    ours = np.concatenate([r.forces.ravel() for r in results])
    dft = np.concatenate([atoms.get_forces().ravel() for atoms in frames])
    return {
        "frames": len(frames),
        "force_rmse_mev_per_angstrom": 1000 * float(np.sqrt(np.mean((ours - dft) ** 2))),
        "dft_force_rms_mev_per_angstrom": 1000 * float(np.sqrt(np.mean(dft**2))),
        "slope": float(ours @ dft / (dft @ dft)),
    }


def measure(model: str, dtype: str, displacements: list[float], frames: list[Atoms]) -> dict[str, object]:
    """All numbers of one force field."""
    start = time.time()
    force_field = Remembered(load_force_field(model, dtype=dtype))
    protocol: RelaxProtocol = PROTOCOL.relax.model_copy(update={"parity": "average"})
    relaxed = relax(bulk("Si", "diamond", a=5.43, cubic=True), force_field, protocol)
    atoms = relaxed.structure.to_atoms()
    rows = []
    for displacement in displacements:
        for parity in ("average", "as_is"):
            values = kappa(force_field, atoms, displacement, parity)
            rows.append({"displacement_angstrom": displacement, "parity": parity, **values})
            print(model, rows[-1], flush=True)
        force_field.known.clear()
    return {
        "model": model,
        "model_key": force_field.key,
        "label": force_field.inner.label,
        "dtype": force_field.declaration.dtype,
        "lattice_constant_angstrom": float(atoms.cell.lengths().mean()),
        "energy_per_atom_ev": relaxed.energy_per_atom_ev,
        "mesh": PROTOCOL.mesh,
        "kappa_300k_w_per_m_k": rows,
        "si_pbe_111_frames": force_errors(force_field, frames) if frames else None,
        "seconds": time.time() - start,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "load_average": os.getloadavg(),
        "versions": {name: version(name) for name in ("torch", "phonopy", "phono3py", "ase", "esen_flows")},
    }


def main() -> None:
    """Measure and write one file per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="card names or checkpoint paths")
    parser.add_argument("--dtype", default="float64")
    parser.add_argument("--displacements", type=float, nargs="+", default=[0.005, 0.01, 0.03])
    parser.add_argument(
        "--dft-frames", type=Path, help="folder with vasprun_xmls.tar.lzma of phono3py's Si-PBE example"
    )
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    frames = dft_frames(arguments.dft_frames) if arguments.dft_frames else []
    for model in arguments.models:
        result = measure(model, arguments.dtype, arguments.displacements, frames)
        path = arguments.output / f"silicon_kappa_{Path(model).stem}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
