"""Structures keep their key through the JSON of jobs."""

import json
import warnings

import numpy as np
import pytest
from ase.build import bulk, molecule

from esen_flows.errors import StructureError
from esen_flows.schemas.keys import atoms_key
from esen_flows.structures.conversion import as_atoms, atoms_from_json, atoms_to_json


def test_json_keeps_the_key() -> None:
    rattled = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    rattled.rattle(0.1, seed=1)
    slab = bulk("Si")
    slab.pbc = (True, True, False)
    charged = molecule("OH")
    charged.info.update(charge=-1, spin=0.5, note="left behind")
    for atoms in (rattled, slab, charged):
        restored = atoms_from_json(json.loads(json.dumps(atoms_to_json(atoms))))
        assert atoms_key(restored) == atoms_key(atoms)
        assert np.array_equal(restored.positions, atoms.positions)


def test_pymatgen_structures_are_converted() -> None:
    from pymatgen.core import Lattice, Structure

    structure = Structure(Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    atoms = as_atoms(structure)
    assert atoms.get_chemical_symbols() == ["Na", "Cl"]
    assert atoms.pbc.all()
    np.testing.assert_array_equal(atoms.positions, structure.cart_coords)
    assert "charge" not in atoms.info
    assert as_atoms(atoms) is atoms


def test_charge_of_pymatgen_is_kept() -> None:
    from pymatgen.core import Lattice, Structure

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen misses oxidation states
        structure = Structure(Lattice.cubic(5.64), ["Na"], [[0, 0, 0]], charge=1)
    assert as_atoms(structure).info["charge"] == 1.0


def test_other_types_and_partial_occupancies_are_refused() -> None:
    from pymatgen.core import Lattice, Structure

    alloy = Structure(Lattice.cubic(4.0), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    with pytest.raises(StructureError, match="partially occupied"):
        as_atoms(alloy)
    with pytest.raises(StructureError, match="a pymatgen Structure or the path of a structure file, got str"):
        as_atoms("Si.cif")  # type: ignore[arg-type]
