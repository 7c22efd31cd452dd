"""Total charge and spin multiplicity of structures."""

import numpy as np
from ase import Atoms

from esen_flows.errors import StructureError


def charge_and_spin_of(atoms: Atoms) -> tuple[int, int]:
    """Total charge and spin multiplicity of a structure.

    Parameters
    ----------
    atoms
        The structure; `atoms.info["charge"]` and `atoms.info["spin"]` are read, and are 0 where they are missing.

    Returns
    -------
    tuple[int, int]
        Charge in elementary charges, and multiplicity.

    Raises
    ------
    StructureError
        One of them is not an integer.
    """
    found = []
    for name in ("charge", "spin"):
        value = atoms.info.get(name, 0)
        if not isinstance(value, int | float | np.number) or not float(value).is_integer():
            raise StructureError(f"{atoms.get_chemical_formula()}: {name} must be an integer, got {value!r}")
        found.append(int(value))
    return found[0], found[1]
