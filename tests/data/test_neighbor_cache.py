"""Kept neighbour pairs against a fresh search: the same edges for any motion, and no search where none is needed."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.filters import UnitCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE

from esen_flows.data import neighbor_cache
from esen_flows.data.neighbor_cache import NeighborCache
from esen_flows.data.neighbors import neighbor_pairs
from esen_flows.errors import StructureError

CUTOFF = 4.5


def assert_fresh(cache, atoms):
    """The edges of a cache are those of a search."""
    (edges,) = cache.edges([atoms])
    assert_edges(edges, atoms)


def assert_edges(edges, atoms):
    """Edges are those of a search, to 1e-13 Angstrom."""
    fresh = neighbor_pairs(atoms, CUTOFF)
    assert np.all(np.diff(edges.target.numpy()) >= 0)
    rows = [
        np.column_stack((target, source, vectors))[np.lexsort((*vectors.round(7).T, source, target))]
        for source, target, vectors in ((one.source, one.target, one.vectors.numpy()) for one in (edges, fresh))
    ]
    assert rows[0].shape == rows[1].shape
    np.testing.assert_allclose(rows[0], rows[1], rtol=0, atol=1e-13)


def rattled(atoms, seed=0, stdev=0.05):
    atoms.rattle(stdev, seed=seed)
    return atoms


def test_molecular_dynamics_wrapped_or_not():
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.calc = EMT()
    random = np.random.default_rng(0)
    atoms.set_velocities(random.normal(size=(32, 3)) * np.sqrt(4000 * units.kB / atoms.get_masses())[:, None])
    cache, count = NeighborCache(CUTOFF), 0

    def compare():
        nonlocal count
        count += 1
        seen = atoms.copy()
        seen.positions += 0.2 * count  # the whole crystal drifts through its cell
        if count % 3 == 0:
            seen.wrap()
        assert_fresh(cache, seen)

    dynamics = VelocityVerlet(atoms, 5 * units.fs)
    dynamics.attach(compare)
    dynamics.run(30)
    assert count == 31
    assert 1 < cache.searches < 10  # so hot that atoms leave their places, and yet most steps need no search


def test_relaxation_with_its_cell():
    atoms = rattled(bulk("Cu", a=3.45, cubic=True) * (2, 2, 2))
    atoms.set_cell(atoms.cell.array @ [[1, 0.04, 0], [0, 0.97, 0.03], [0, 0, 1.05]], scale_atoms=True)
    atoms.calc = EMT()
    cache = NeighborCache(CUTOFF)
    cells = [atoms.cell.volume]

    def compare():
        cells.append(atoms.cell.volume)
        assert_fresh(cache, atoms)

    optimizer = FIRE(UnitCellFilter(atoms), logfile=None)
    optimizer.attach(compare)
    optimizer.run(fmax=0.01, steps=40)
    assert max(cells) / min(cells) > 1.05
    assert cache.searches <= 2


CASES = {
    "crystal": bulk("Si", cubic=True) * (2, 2, 2),
    "small cell with self-images": bulk("Si", a=3.0),
    "one atom": bulk("Cu", a=2.0),
    "triclinic": Atoms("Si3", cell=[[3, 0, 0], [2.5, 2.0, 0], [-1.5, 1.0, 4]], pbc=True,
                       scaled_positions=[[0, 0, 0], [0.3, 0.6, 0.2], [0.7, 0.1, 0.9]]),
    "slab": fcc111("Cu", (3, 3, 3), vacuum=8, periodic=False),
    "tilted slab": Atoms("Cu4", cell=[[2.5, 0, 1], [0.3, 2.6, 0], [0, 0, 0]], pbc=[True, True, False],
                         positions=[[0, 0, 0], [1, 1, 2], [0.5, 2, 4], [2, 0, 6]]),
    "wire": Atoms("C3", cell=[0, 0, 2.9], pbc=[False, False, True], positions=[[0, 0, 0], [1, 0, 1], [5, 1, 2]]),
    "molecule": molecule("C60"),
    "molecule in a box": Atoms("CO", cell=[9, 9, 9], positions=[[1, 1, 1], [1, 1, 5.5]]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_any_motion_of_any_structure(name, monkeypatch):
    monkeypatch.setattr(neighbor_cache, "MINIMUM_ATOMS", 0)
    random = np.random.default_rng(1)
    start, cache = CASES[name], NeighborCache(CUTOFF)
    for _ in range(40):
        atoms = start.copy()
        strain = np.eye(3) + random.choice([0.0, 0.01, 0.1]) * random.normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=bool(random.integers(2)) and atoms.cell.rank == 3)
        atoms.positions += random.choice([0.01, 0.2, 0.6]) * random.normal(size=(len(atoms), 3))
        if random.integers(2):
            images = random.integers(-2, 3, size=(len(atoms), 3)) * atoms.pbc
            atoms.positions += images @ atoms.cell.array + random.normal(size=3)
        assert_fresh(cache, atoms)
    assert 0 < cache.searches < 40


@pytest.mark.parametrize(("step", "searches", "edges"), [(0.499, 1, 0), (0.501, 2, 0), (1.01, 2, 2)])
def test_a_search_is_needed_when_the_skin_is_used_up(step, searches, edges, monkeypatch):
    monkeypatch.setattr(neighbor_cache, "MINIMUM_ATOMS", 0)
    cache = NeighborCache(5.0, skin_angstrom=1.0)
    atoms = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 7.0]])
    cache.edges([atoms])
    atoms.positions[:, 2] += [step, -step]
    (found,) = cache.edges([atoms])
    assert (cache.searches, len(found.source)) == (searches, edges)


def test_pairs_beyond_the_cutoff_never_leave():
    cache = NeighborCache(5.0)
    for edges in cache.edges([rattled(bulk("Si", cubic=True) * (2, 2, 2), seed) for seed in range(3)]):
        assert float(edges.vectors.norm(dim=1).max()) <= 5.0
    assert cache.searches == 1


def test_displaced_and_transmuted_supercells_share_one_search():
    perfect = bulk("Si", cubic=True) * (2, 2, 2)
    cells = []
    for atom in range(10):
        displaced = perfect.copy()
        displaced.positions[atom] += [0.03, 0, -0.01]
        displaced.numbers[atom] = 32
        cells.append(displaced)
    cache = NeighborCache(CUTOFF)
    together = cache.edges(cells)
    assert cache.searches == 1
    for atoms, edges in zip(cells, together, strict=True):
        assert_edges(edges, atoms)


def test_other_periodicity_and_other_size_are_searched_again():
    cache = NeighborCache(CUTOFF)
    atoms = bulk("Si", cubic=True) * (2, 2, 2)
    for changed in (atoms, Atoms(atoms, pbc=[True, True, False]), atoms[:-1], atoms):
        assert_fresh(cache, changed)
    assert cache.searches == 3


def unlike_crystals(count: int) -> list[Atoms]:
    """Crystals of 30 atoms that have nothing in common with each other."""
    random = np.random.default_rng(0)
    sizes = np.linspace(8.0, 11.0, count)
    return [Atoms("Cu30", cell=[a, a, a], pbc=True, scaled_positions=random.random((30, 3))) for a in sizes]


def moved_on(crystals: list[Atoms]) -> list[Atoms]:
    """The next step of a batched relaxation."""
    return [rattled(atoms.copy(), seed, 0.01) for seed, atoms in enumerate(crystals)]


def test_every_crystal_of_a_batch_keeps_its_table():
    """Also where members leave the batch, and new ones enter it."""
    cache, batch = NeighborCache(CUTOFF), unlike_crystals(60)
    cache.edges(batch)
    assert cache.searches == 60
    for _ in range(3):
        batch = moved_on(batch)
        cache.edges(batch)
    assert cache.searches == 60
    newcomer = bulk("Si", cubic=True) * (2, 2, 1)
    batch = [*batch[3:20], *batch[22:], newcomer[:30]]
    for _ in range(3):
        batch = moved_on(batch)
        for atoms, edges in zip(batch, cache.edges(batch), strict=True):
            assert_edges(edges, atoms)
    assert cache.searches == 61
    half = batch[30:]  # thirty neighbours in the order of the batch leave at once
    for _ in range(4):
        half = moved_on(half)
        cache.edges(half)
    assert cache.searches == 61


def test_a_batch_that_is_larger_than_the_cache_uses_it_as_far_as_it_goes(monkeypatch):
    batch = unlike_crystals(12)
    one = NeighborCache(CUTOFF)
    one.edges(batch[:6])
    monkeypatch.setattr(neighbor_cache, "MAXIMUM_PAIRS", kept_pairs(one) - 1)  # room for six
    cache = NeighborCache(CUTOFF)
    for step in range(1, 4):
        cache.edges(batch)
        assert cache.searches == 12 + 6 * (step - 1)
        assert kept_pairs(cache) <= kept_pairs(one)


def test_tables_that_are_not_used_any_more_make_room(monkeypatch):
    before, after = unlike_crystals(12)[:6], unlike_crystals(12)[6:]
    cache = NeighborCache(CUTOFF)
    cache.edges(before)
    monkeypatch.setattr(neighbor_cache, "MAXIMUM_PAIRS", kept_pairs(cache))
    for _ in range(4):
        cache.edges(after)
    searches = cache.searches
    cache.edges(after)
    assert cache.searches == searches


def kept_pairs(cache: NeighborCache) -> int:
    return sum(kept.pairs for shelf in cache._shelves.values() for kept in shelf.kept)


def test_broken_structures_are_refused_after_good_ones():
    good = bulk("Si", cubic=True) * (2, 2, 2)
    cache = NeighborCache(CUTOFF)
    cache.edges([good])
    lost, flat, double = good.copy(), good.copy(), good.copy()
    lost.positions[3, 1] = np.nan
    flat.set_cell([10, 10, 0])
    double.positions[5] = double.positions[4] + [0, 0, 1e-3]
    for broken, words in ((lost, "NaN"), (flat, "lattice vector"), (double, "atoms [45] and [45] are 0.001")):
        with pytest.raises(StructureError, match=words):
            cache.edges([good, broken, good])
    flat.set_cell(np.full((3, 3), np.nan))
    with pytest.raises(StructureError, match="NaN"):
        cache.edges([flat])


def test_threads_share_a_cache():
    perfect = bulk("Si", cubic=True) * (2, 2, 2)
    cells = [rattled(perfect * (1, 1, 1 + seed % 2), seed) for seed in range(40)]
    cache = NeighborCache(CUTOFF)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda atoms: cache.edges([atoms])[0], cells))
    for atoms, edges in zip(cells, found, strict=True):
        assert_edges(edges, atoms)
    assert cache.searches < 20
