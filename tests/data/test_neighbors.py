"""Neighbour pairs against ASE's own list, for every kind of cell."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import primitive_neighbor_list

from esen_flows.data.neighbors import neighbor_pairs
from esen_flows.errors import StructureError

CASES = {
    "one atom, many self-images": (bulk("Cu", a=3.6), 6.0),
    "skewed triclinic": (Atoms("Si3", cell=[[3, 0, 0], [2.5, 2.0, 0], [-1.5, 1.0, 4]], pbc=True,
                               scaled_positions=[[0, 0, 0], [0.3, 0.6, 0.2], [0.7, 0.1, 0.9]]), 5.0),
    "slab": (Atoms("C2", cell=[2.5, 4.3, 20], pbc=[True, True, False], positions=[[0, 0, 1], [0, 1.4, 1]]), 4.0),
    "wire with one lattice vector": (Atoms("C", cell=[1.5, 0, 0], pbc=[True, False, False]), 4.0),
    "molecule without a cell": (molecule("C2H6"), 5.0),
    "atoms outside their cell": (Atoms("Na2", cell=[4, 4, 4], pbc=True, positions=[[-9, 2, 13], [1, 1, 1]]), 4.5),
    "isolated atom": (Atoms("He"), 5.0),
    "negative handedness": (Atoms("Na", cell=[[0, 4, 0], [4, 0, 0], [0, 0, 4]], pbc=True), 5.0),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_pairs_equal_ase(name):
    atoms, cutoff = CASES[name]
    pairs = neighbor_pairs(atoms, cutoff)
    i, j, vectors = primitive_neighbor_list(
        "ijD", atoms.pbc, atoms.cell.complete().array, atoms.positions, cutoff, self_interaction=False
    )
    ours, theirs = (
        np.column_stack(columns)[np.lexsort((*columns[2].round(9).T, columns[1], columns[0]))]
        for columns in ((pairs.target.numpy(), pairs.source.numpy(), pairs.vectors.numpy()), (i, j, vectors))
    )
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_pairs_are_sorted_by_target():
    pairs = neighbor_pairs(bulk("Si", cubic=True), 5.0)
    assert np.all(np.diff(pairs.target.numpy()) >= 0)


@pytest.mark.parametrize(
    ("atoms", "words"),
    [
        (Atoms("H", positions=[[np.nan, 0, 0]]), "NaN"),
        (Atoms("H", cell=[3, 3, 0], pbc=True), "lattice vector"),
        (Atoms("H", cell=[[1, 0, 0], [2, 0, 0], [0, 0, 1]], pbc=True), "linearly dependent"),
        (Atoms("H2", positions=[[0, 0, 0], [0, 0, 1e-3]]), "apart"),
    ],
)
def test_impossible_structures_are_refused(atoms, words):
    with pytest.raises(StructureError, match=words):
        neighbor_pairs(atoms, 5.0)


@pytest.mark.parametrize(
    "cell", [bulk("Cu"), bulk("Si", cubic=True) * (2, 1, 1), Atoms("OH", positions=[[0, 0, 0], [0, 0, 1]])]
)
def test_the_reverse_of_every_pair_is_known(cell: Atoms) -> None:
    """At every distance of a neighbour as the cutoff: rounding may put a pair inside and its reverse outside of it."""
    atoms = cell.copy()
    atoms.set_cell(atoms.cell.array @ np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0], scale_atoms=True)
    lengths = np.unique(np.linalg.norm(neighbor_pairs(atoms, 5.0).vectors.numpy(), axis=1))
    for cutoff in lengths:
        found = neighbor_pairs(atoms, float(cutoff), reverse=True)
        assert torch.equal(found.source[found.reverse], found.target)
        assert torch.equal(found.target[found.reverse], found.source)
        torch.testing.assert_close(found.vectors[found.reverse], -found.vectors, rtol=0, atol=1e-12)
    assert neighbor_pairs(atoms, 5.0).reverse is None
