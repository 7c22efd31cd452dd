"""Fields of a job's output that other packages' Makers read: structure, energy, forces and stress as atomate2 has them.

atomate2 writes stress in kBar with the sign of VASP, which is opposite to ASE's and ours. Its flows read these fields
both from the document itself and from its field `output`, so that both are here.
"""

from typing import Any

import numpy as np
from ase import Atoms

from esen_flows.structures.conversion import to_pymatgen
from esen_flows.units import EV_PER_ANGSTROM3_TO_GPA

# Larger structures and their forces do not go into the documents of jobs, but to jobflow's `data` store.
MOST_ATOMS_INLINE = 200
LARGE_FIELDS = ("structure", "forces")
_KBAR_PER_GPA = 10.0


def atomate2_fields(
    atoms: Atoms, energy_ev: float, forces_ev_per_angstrom: np.ndarray, stress_ev_per_angstrom3: np.ndarray
) -> dict[str, Any]:
    """A structure and what a force field says of it, under the names, units and signs of atomate2's documents.

    Parameters
    ----------
    atoms
        The structure.
    energy_ev
        Its total energy in eV.
    forces_ev_per_angstrom
        (n, 3) forces in eV/Angstrom.
    stress_ev_per_angstrom3
        (3, 3) stress in eV/Angstrom^3, positive under tension as in ASE; NaN where the cell has no volume.

    Returns
    -------
    dict[str, Any]
        structure (a pymatgen Structure or Molecule; None for a slab or wire without all cell vectors), energy (eV),
        forces (eV/Angstrom), stress (kBar, negative under tension as in VASP; None without a volume), the stress as
        ours in `stress_ev_per_angstrom3`, `output` with energy, energy_per_atom, forces and stress once more, and
        dir_name (None: nothing is handed over in folders).
    """
    stress = np.asarray(stress_ev_per_angstrom3, dtype=float)
    has_stress = bool(np.isfinite(stress).all())
    kbar = (-_KBAR_PER_GPA * EV_PER_ANGSTROM3_TO_GPA * stress).tolist() if has_stress else None
    values = {"energy": float(energy_ev), "forces": np.asarray(forces_ev_per_angstrom).tolist(), "stress": kbar}
    return {
        "structure": to_pymatgen(atoms) if atoms.cell.rank == 3 or not atoms.pbc.any() else None,
        **values,
        "stress_ev_per_angstrom3": stress.tolist() if has_stress else None,
        "output": {**values, "energy_per_atom": float(energy_ev) / len(atoms)},
        "dir_name": None,
    }
