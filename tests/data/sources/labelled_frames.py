"""A frame of rocksalt with labels, as the sources of this folder hold them."""

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

FORCES = np.array([[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]])
STRESS = np.array([0.01, 0.02, 0.03, 0.004, 0.005, 0.006])  # xx, yy, zz, yz, xz, xy
FULL_STRESS = np.array([[0.01, 0.006, 0.005], [0.006, 0.02, 0.004], [0.005, 0.004, 0.03]])


def labelled_frame(energy: float = -7.25, stress: np.ndarray | None = STRESS) -> Atoms:
    """Rocksalt with energies, forces and, if it is not None, a stress."""
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    results = {"energy": energy, "free_energy": energy - 0.25, "forces": FORCES, "stress": stress}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms
