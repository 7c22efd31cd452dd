"""Structures of results for ASE and pymatgen."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
from ase.build import bulk, molecule
from result_documents import document, failed, key_of

from esen_flows.errors import InputError, StoreError
from esen_flows.schemas.documents import StructureData
from esen_flows.store.bulk import insert_results
from esen_flows.store.queries.crystals import stream_atoms
from esen_flows.structures.conversion import to_pymatgen

if TYPE_CHECKING:
    from esen_flows.store.results import Store


def test_pymatgen_keeps_order_charge_and_periodicity() -> None:
    atoms = bulk("GaAs", "zincblende", a=5.65)[[1, 0]]
    atoms.info["charge"] = 1.0
    structure = to_pymatgen(atoms)
    assert [site.specie.symbol for site in structure] == ["As", "Ga"]
    np.testing.assert_allclose(structure.cart_coords, atoms.positions)
    np.testing.assert_allclose(structure.lattice.matrix, atoms.cell.array)
    assert structure.charge == 1.0
    slab = bulk("Cu")
    slab.pbc = (True, True, False)
    assert to_pymatgen(slab).lattice.pbc == (True, True, False)
    water = to_pymatgen(molecule("H2O"))
    assert (type(water).__name__, water.num_sites) == ("Molecule", 3)


@pytest.mark.mongod
def test_missing_structures_are_errors(store: "Store") -> None:
    output = {"structure": StructureData.from_atoms(bulk("Cu")).model_dump()}
    insert_results(store, [document(key_of("p"), kind="phonon", output=output), document(key_of("x"))])
    insert_results(store, [failed(key_of("f"), final=True)])
    ((found, atoms),) = stream_atoms(store, "phonon")
    assert (found.key, found.output, len(atoms)) == (key_of("p"), None, 1)
    with pytest.raises(StoreError, match="has no structure; the store is damaged"):
        list(stream_atoms(store, "relax"))
    with pytest.raises(StoreError, match=r"the input structure .* is not stored"):
        list(stream_atoms(store, "phonon", which="input"))
    with pytest.raises(InputError, match="failed results have no computed structure"):
        stream_atoms(store, "relax", failed=True)
    with pytest.raises(InputError, match="'computed' or 'input'"):
        stream_atoms(store, "relax", which="final")  # type: ignore[arg-type]
