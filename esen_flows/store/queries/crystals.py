"""Structures of results for ASE and pymatgen: the computed ones, or the ones that the computations started from.

for document, atoms in stream_atoms(store, "relax", chemsys="Ga-As"): ...
for document, atoms in stream_atoms(store, "phonon", which="input"): ...
"""

from collections.abc import Iterator
from typing import Any, Literal, Unpack

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from esen_flows.errors import InputError, StoreError
from esen_flows.schemas.documents import Kind, ResultDocument, StructureData
from esen_flows.schemas.property_lookup import entry_of
from esen_flows.store.bulk import batches
from esen_flows.store.queries.query import BATCH, WITHOUT_ARRAYS, fetch, read_structure, select_ids
from esen_flows.store.queries.selection import Filters, select
from esen_flows.store.results import Store

Which = Literal["computed", "input"]
# What a force field says of the computed structure, where the output has it.
_EVALUATED = ("energy_ev", "forces_ev_per_angstrom", "stress_ev_per_angstrom3")


def stream_atoms(
    store: Store, kind: Kind, which: Which = "computed", **filters: Unpack[Filters]
) -> Iterator[tuple[ResultDocument, Atoms]]:
    """Results with their structures, one after the other in little memory.

    Parameters
    ----------
    store
        Open store.
    kind
        Kind of result.
    which
        "computed" gives the relaxed or evaluated structure with energy, forces and stress of a calculator, the
        primitive cell of a lattice result, or the unit cell of a forces result. "input" gives the
        structure that the chain of results started from.
    filters
        Filters and order as in `query`; without a limit all results.

    Returns
    -------
    iterator of (ResultDocument, Atoms)
        A result without its arrays, and its structure.

    Raises
    ------
    InputError
        A filter cannot be read, or computed structures of failed results were requested.
    StoreError
        A structure is missing.
    """
    if which not in ("computed", "input"):
        raise InputError(f"which must be 'computed' or 'input', got {which!r}")
    if which == "computed" and filters.get("failed"):
        raise InputError("failed results have no computed structure; ask for the input structures")
    selection = select(kind, **filters)
    entry = entry_of(kind)
    if entry.subject == "dataset":
        raise InputError(f"{kind} results are about datasets; store.datasets.fetch_dataset gives their structures")
    if entry.subject == "model":
        raise InputError(f"{kind} results are about force fields and have no structures")
    if which == "computed" and not entry.structure:
        raise InputError(f"{kind} results have no structure of their own; ask for the input structures")
    ids = select_ids(store, selection)
    return _with_input(store, ids) if which == "input" else _with_computed(store, kind, ids)


def _with_computed(store: Store, kind: Kind, ids: list[Any]) -> Iterator[tuple[ResultDocument, Atoms]]:
    name = entry_of(kind).structure
    # A projection that includes parts of the output has to include all other fields by name.
    wanted = dict.fromkeys((*ResultDocument.model_fields, *(f"output.{part}" for part in (name, *_EVALUATED))), 1)
    del wanted["output"]
    for row in fetch(store, "results", ids, wanted):
        document = store.read(row)
        output = document.output
        if output is None or name not in output:
            raise StoreError(f"result {document.key} has no structure; the store is damaged")
        atoms = StructureData(**output[name]).to_atoms()
        if all(part in output for part in _EVALUATED):
            _attach(atoms, *(output[part] for part in _EVALUATED))
        yield document.model_copy(update={"output": None}), atoms


def _with_input(store: Store, ids: list[Any]) -> Iterator[tuple[ResultDocument, Atoms]]:
    for rows in batches(fetch(store, "results", ids, WITHOUT_ARRAYS), BATCH):
        documents = [store.read({**row, "output": None}) for row in rows]
        keys = list(dict.fromkeys(document.structure_key for document in documents))
        inputs = {row["_id"]: read_structure(row).atoms for row in fetch(store, "structures", keys, {})}
        for document in documents:
            if document.structure_key not in inputs:
                raise StoreError(f"the input structure {document.structure_key} of result {document.key} is not stored")
            yield document, inputs[document.structure_key].copy()


def _attach(atoms: Atoms, energy: float, forces: np.ndarray, stress: np.ndarray) -> None:
    """Attach energy, forces and stress (xx yy zz yz xz xy) in ASE's form; a molecule has a stress of NaN, thus none."""
    results: dict[str, Any] = {"energy": energy, "forces": forces}
    if np.isfinite(stress).all():
        results["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    atoms.calc = SinglePointCalculator(atoms, **results)
