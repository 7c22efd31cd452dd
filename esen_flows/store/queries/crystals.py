"""Structures of results, for ASE and pymatgen: the one that was computed, or the one that it started from.

for document, atoms in stream_atoms(store, "relax", chemsys="Ga-As"): ...
for document, atoms in stream_atoms(store, "conductivity", which="input"): ...
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from esen_flows.errors import InputError, StoreError
from esen_flows.schemas.documents import Kind, ResultDocument, StructureData
from esen_flows.store.queries.query import BATCH, Filters, fetch, read_structure, select, select_ids
from esen_flows.store.results import Store

if TYPE_CHECKING:
    from pymatgen.core import Molecule, Structure

Which = Literal["computed", "input"]
# The structure that a result is about, in its output.
_PLACES: dict[Kind, str] = {
    "relax": "structure",
    "forces": "unitcell",
    "phonon": "structure",
    "conductivity": "structure",
}
OF_DATASETS: tuple[Kind, ...] = ("labelling", "training", "evaluation")
_RELAXED = ("energy_ev", "forces_ev_per_angstrom", "stress_ev_per_angstrom3")


def stream_atoms(
    store: Store, kind: Kind, which: Which = "computed", **filters: Unpack[Filters]
) -> Iterator[tuple[ResultDocument, Atoms]]:
    """Results with a structure each, one after the other in little memory.

    Parameters
    ----------
    which
        "computed" is the relaxed structure (of a relaxation with its energy, forces and stress as a calculator's
        results), the primitive cell of a phonon or conductivity, the unit cell of forces; "input" what was asked about.
    filters
        as `query` takes them; without a limit all.

    Raises
    ------
    InputError
        a filter that means nothing, or computed structures of failed results.
    StoreError
        a structure is missing.
    """
    if which not in ("computed", "input"):
        raise InputError(f"which must be 'computed' or 'input', got {which!r}")
    if which == "computed" and filters.get("failed"):
        raise InputError("failed results have no computed structure; ask for the input structures")
    if kind in OF_DATASETS:
        raise InputError(f"{kind} results are about datasets; store.datasets.fetch_dataset gives their structures")
    selection = select(kind, **filters)
    if which == "computed" and kind not in _PLACES:
        raise InputError(f"{kind} results have no structure of their own; ask for the input structures")
    ids = select_ids(store, selection)
    return _with_input(store, ids) if which == "input" else _with_computed(store, kind, ids)


def to_pymatgen(atoms: Atoms) -> "Structure | Molecule":
    """A pymatgen Structure, in the order of the atoms; a Molecule if nothing is periodic."""
    from pymatgen.core import Lattice, Molecule, Structure

    symbols, charge = atoms.get_chemical_symbols(), atoms.info.get("charge")
    if not atoms.pbc.any():
        return Molecule(symbols, atoms.positions, charge=charge or 0.0)
    lattice = Lattice(atoms.cell.array, pbc=tuple(atoms.pbc.tolist()))
    return Structure(lattice, symbols, atoms.positions, coords_are_cartesian=True, charge=charge)


def _with_computed(store: Store, kind: Kind, ids: list[Any]) -> Iterator[tuple[ResultDocument, Atoms]]:
    place = _PLACES[kind]
    names = (place, *_RELAXED) if kind == "relax" else (place,)
    # An inclusion of parts of the output, so everything else has to be named too.
    wanted = dict.fromkeys((*ResultDocument.model_fields, *(f"output.{name}" for name in names)), 1)
    del wanted["output"]
    for row in fetch(store, "results", ids, wanted):
        document = store.read(row)
        if document.output is None or place not in document.output:
            raise StoreError(f"result {document.key} has no structure; the store is damaged")
        output = document.output
        atoms = StructureData(**output[place]).to_atoms()
        if kind == "relax":
            _attach(atoms, *(output[name] for name in _RELAXED))
        yield document.model_copy(update={"output": None}), atoms


def _with_input(store: Store, ids: list[Any]) -> Iterator[tuple[ResultDocument, Atoms]]:
    for start in range(0, len(ids), BATCH):
        documents = [
            store.read({**row, "output": None})
            for row in fetch(store, "results", ids[start : start + BATCH], {"output": 0, "blobs": 0})
        ]
        keys = list(dict.fromkeys(document.structure_key for document in documents))
        inputs = {row["_id"]: read_structure(row).atoms for row in fetch(store, "structures", keys, {})}
        for document in documents:
            if document.structure_key not in inputs:
                raise StoreError(f"the input structure {document.structure_key} of result {document.key} is not stored")
            yield document, inputs[document.structure_key].copy()


def _attach(atoms: Atoms, energy: float, forces: np.ndarray, stress: np.ndarray) -> None:
    """Energy, forces and stress (xx yy zz yz xz xy) as ASE carries them; the stress of a molecule is NaN: none."""
    results: dict[str, Any] = {"energy": energy, "forces": forces}
    if np.isfinite(stress).all():
        results["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    atoms.calc = SinglePointCalculator(atoms, **results)
