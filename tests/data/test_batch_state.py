"""Neighbour tables that stay with a batch: the edges of a fresh search at every geometry of all kinds of structures."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from esen_flows.data import batch_state, image_search, neighbor_tables, pair_search
from esen_flows.data.batch_state import BatchState
from esen_flows.data.edges import _true_rows_without_waiting, true_rows
from esen_flows.data.neighbor_tables import NeighborTables
from esen_flows.data.neighbors import neighbor_pairs
from esen_flows.data.pair_kernels import pair_kernels
from esen_flows.errors import StructureError

CUTOFF = 4.5
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
LEFT_HANDED = bulk("Si", a=4.0)
LEFT_HANDED.set_cell(LEFT_HANDED.cell.array @ np.diag([1, 1, -1]), scale_atoms=True)
STRUCTURES = [*CASES.values(), LEFT_HANDED]


def assert_fresh(state: BatchState) -> None:
    edges = state.edges(CUTOFF, reverse=True)
    source, target, vectors, system = (
        column.numpy() for column in (edges.source, edges.target, edges.vectors, edges.system)
    )
    assert np.all(np.diff(target) >= 0)
    assert torch.equal(edges.target[edges.reverse], edges.source)
    np.testing.assert_allclose(edges.vectors[edges.reverse], -edges.vectors, rtol=0, atol=1e-12)
    for index, atoms in enumerate(state.structures()):
        fresh, own, first = neighbor_pairs(atoms, CUTOFF), system == index, state.atoms.starts[index]
        assert edges.counts[index] == len(fresh.source)
        rows = [
            np.column_stack((t, s, v))[np.lexsort((*v.round(7).T, s, t))]
            for s, t, v in (
                (source[own] - first, target[own] - first, vectors[own]),
                (fresh.source.numpy(), fresh.target.numpy(), fresh.vectors.numpy()),
            )
        ]
        np.testing.assert_allclose(rows[0], rows[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("large", [0, 10**9, 8], ids=["one by one", "by images", "both"])
def test_edges_are_those_of_a_search_when_atoms_move_wrap_leave_and_enter(large, monkeypatch):
    monkeypatch.setattr(pair_search, "MOST_ATOMS_BY_IMAGES", {"cpu": large})
    monkeypatch.setattr(pair_search, "FEW_STRUCTURES", 0)
    monkeypatch.setattr(image_search, "CANDIDATES_AT_ONCE", 20_000)  # several passes
    searched, search = [], NeighborTables.search

    def counted(templates, *arguments, **options):
        searched.append(len(templates))
        return search(templates, *arguments, **options)

    monkeypatch.setattr(NeighborTables, "search", counted)
    random = np.random.default_rng(2)
    state = BatchState.of(STRUCTURES)
    for step in range(12):
        assert_fresh(state)
        size = [0.02, 0.02, 0.3][step % 3]
        positions = state.positions + torch.from_numpy(size * random.normal(size=state.positions.shape)) + 0.3
        cells = state.cells
        if step % 4 == 3:  # crystals are strained, and atoms change their images
            strain = torch.from_numpy(np.eye(3) + 0.03 * random.normal(size=(len(cells), 3, 3)))
            strain = torch.where(state.is_crystal.view(-1, 1, 1), strain, torch.eye(3).double())
            cells = cells @ strain
            positions = torch.bmm(positions.unsqueeze(1), state.atoms.spread(strain)).squeeze(1)
            jumps = torch.from_numpy(random.integers(-1, 2, size=positions.shape)).double()
            jumps *= state.atoms.spread(state.is_crystal.double())
            positions += torch.bmm(jumps.unsqueeze(1), state.atoms.spread(cells)).squeeze(1)
        state = state.moved(positions, cells)
        if step == 5:
            state = state.select([8, 0, 3, 4, 9]).joined(BatchState.of(STRUCTURES[1:3]))
        if step == 8:
            state = state.select([5, 1, 2]).joined(state.select([6]))
    assert searched[0] == len(STRUCTURES)
    assert any(0 < count < 5 for count in searched[1:])  # only those whose skin was used up
    assert len(searched) < 12


def test_the_images_share_the_tables_of_the_structures(monkeypatch):
    state = BatchState.of(STRUCTURES)
    edges = state.edges(CUTOFF)
    monkeypatch.setattr(NeighborTables, "search", None)
    inverted = state.turned(-torch.eye(3).double().repeat(len(STRUCTURES), 1, 1))
    assert torch.equal(inverted.edges(CUTOFF).vectors, -edges.vectors)
    np.testing.assert_array_equal(inverted.structures()[0].positions, -state.structures()[0].positions)


@pytest.mark.parametrize(("step", "searches"), [(0.29, 1), (0.31, 2)])
def test_a_search_is_needed_when_the_skin_is_used_up(step, searches, monkeypatch):
    counted, search = [], NeighborTables.search
    monkeypatch.setattr(NeighborTables, "search", lambda *a, **k: counted.append(1) or search(*a, **k))
    state = BatchState.of([Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 5.5]])])
    state.edges(5.0)
    state = state.moved(state.positions + torch.tensor([[0, 0, step], [0, 0, -step]]).double())
    assert len(state.edges(5.0).source) == 2
    assert len(counted) == searches


def test_bad_input_is_refused_and_named():
    with pytest.raises(StructureError, match="structure 1 has no atoms"):
        BatchState.of([bulk("Cu"), Atoms()])
    with pytest.raises(StructureError, match="NaN or infinity"):
        BatchState.of([Atoms("Cu", positions=[[np.nan, 0, 0]])])
    state = BatchState.of([bulk("Cu"), molecule("CO")])
    with pytest.raises(StructureError, match=r"^CO: positions or cell hold NaN"):
        state.moved(torch.cat((state.positions[:2], state.positions[2:] * torch.nan))).edges(5.0)
    with pytest.raises(StructureError, match=r"^CO: atoms 0 and 1 are 0 Angstrom apart"):
        state.moved(torch.cat((state.positions[:2], state.positions[1:2]))).edges(5.0)


def test_numbers_of_a_step_come_with_those_of_the_tables(monkeypatch):
    state = BatchState.of(STRUCTURES)
    state.edges(CUTOFF)
    moved = state.moved(state.positions + 0.01)
    (read,) = moved.read(torch.arange(len(STRUCTURES)))
    assert read.tolist() == list(range(len(STRUCTURES)))
    monkeypatch.setattr(batch_state, "to_host", None)  # nothing else is read
    assert moved.edges(CUTOFF).counts.tolist() == state.edges(CUTOFF).counts.tolist()


def test_rows_of_a_mask_without_waiting():
    mask = torch.tensor([False, True, True, False, True])
    assert true_rows(mask, 3).tolist() == _true_rows_without_waiting(mask, 3).tolist() == [1, 2, 4]


def test_structures_for_one_geometry_are_searched_without_a_skin(monkeypatch):
    state, carried = BatchState.of(STRUCTURES, once=True), BatchState.of(STRUCTURES)
    assert_fresh(state)
    assert state.tables.skin == 0.0
    assert len(state.tables.source) < len(carried.find_tables(CUTOFF).source)
    assert torch.equal(state.edges(CUTOFF).vectors, carried.edges(CUTOFF).vectors)  # the same bits
    turned = state.turned(-torch.eye(3).double().repeat(len(STRUCTURES), 1, 1))
    monkeypatch.setattr(NeighborTables, "search", None)
    assert torch.equal(turned.edges(CUTOFF).vectors, -state.edges(CUTOFF).vectors)
    assert state.moved(state.positions + 0.1).tables is None


def test_charges_and_spins_go_along_and_are_read_only_where_they_are_asked_for():
    ions = [Atoms("O", info={"charge": -2}), Atoms("H", info={"spin": 2.0}), Atoms("H", info={"charge": 0.5})]
    state = BatchState.of(ions[:2])
    assert state.charges_and_spins().tolist() == [[-2, 0], [0, 2]]
    joined = state.select([1, 0]).joined(BatchState.of([Atoms("Na", info={"charge": 1})]))
    assert joined.moved(joined.positions + 1).charges_and_spins().tolist() == [[0, 2], [-2, 0], [1, 0]]
    with pytest.raises(StructureError, match=r"H: charge must be an integer, got 0\.5"):
        BatchState.of(ions).charges_and_spins()


@pytest.mark.parametrize("reverse", [False, True])
def test_compiled_functions_give_the_bits_of_torch(reverse, monkeypatch):
    if pair_kernels() is None:
        pytest.skip("no C++ compiler")
    state = BatchState.of(STRUCTURES)
    tables = state.find_tables(CUTOFF, reverse=reverse)
    random = np.random.default_rng(5)
    geometries = [(state.positions, state.cells)]
    for size in (0.01, 0.05, 0.5):
        shift = torch.from_numpy(size * random.normal(size=state.positions.shape))
        strain = torch.from_numpy(np.eye(3) + 0.1 * size * random.normal(size=(3, 3)))
        geometries.append((state.positions + shift, state.cells @ strain))
    lost = geometries[1][0].clone()
    lost[3] = torch.nan
    found = []
    for available in (True, False):
        if not available:
            monkeypatch.setattr(neighbor_tables, "pair_kernels", lambda: None)
        rows = []
        for positions, cells in [*geometries, (lost, state.cells)]:
            status = tables.status(positions, cells)
            edges = tables.edges(positions, cells, status[1].numpy())
            rows.append([status, edges.source, edges.target, edges.system, edges.vectors, edges.reverse])
        found.append(rows)
    needed = torch.stack([status[0] for status, *_ in found[0]])
    assert needed[0].sum() == 0  # at the geometry of the search
    assert needed[3].all()
    assert needed[4, 0] == 1  # NaN
    assert torch.isnan(found[0][4][0][2, 0])
    for compiled, plain in zip(*found, strict=True):
        for one, other in zip(compiled, plain, strict=True):
            assert one is other is None or torch.equal(one.nan_to_num(-1), other.nan_to_num(-1))


def test_tensors_of_another_type_or_size_are_not_passed_by_their_addresses():
    state = BatchState.of(STRUCTURES)
    tables = state.find_tables(CUTOFF)
    places, cells = state.positions, state.cells
    expected = tables.edges(places, cells, tables.status(places, cells)[1].numpy())
    strided = places.T.contiguous().T
    assert torch.equal(tables.edges(strided, cells, expected.counts).vectors, expected.vectors)
    rounded = state.moved(places.float()).edges(CUTOFF)
    assert torch.allclose(rounded.vectors, expected.vectors, rtol=0, atol=1e-5)
    for fewer in ((places[:-1].clone(), cells), (places, cells[:-1].clone())):
        with pytest.raises((IndexError, RuntimeError)):
            tables.status(*fewer)
    with pytest.raises(ValueError, match=r"^3 edges were expected at a geometry with \d+; take `counts` from `status`"):
        tables.edges(places, cells, np.array([1.0, 2.0]))
    with torch.device("meta"):  # the default device of what a caller makes
        again = BatchState.of(STRUCTURES, "cpu").edges(CUTOFF)
    assert torch.equal(again.vectors, expected.vectors)


def test_displaced_copies_share_one_search(monkeypatch):
    perfect = bulk("Si", "diamond", a=5.4) * (3, 3, 3)
    copies = []
    for number in range(12):
        atoms = perfect.copy()
        atoms.positions[number] += [0.05, -0.03, 0.01]
        copies.append(atoms)
    searched, search = [], pair_search.found_pairs
    monkeypatch.setattr(
        neighbor_tables, "found_pairs", lambda some, *rest: searched.append(len(some)) or search(some, *rest)
    )
    together = BatchState.of(copies, once=True)
    assert_fresh(together)
    assert searched == [1]
    edges = together.edges(CUTOFF, reverse=True)
    for number, atoms in enumerate(copies):  # the bits of a search of their own
        alone, own = BatchState.of([atoms], once=True).edges(CUTOFF), edges.system == number
        assert torch.equal(edges.vectors[own], alone.vectors)
        assert torch.equal(edges.source[own] - number * len(perfect), alone.source)
    del searched[:]
    copies[5].positions[0] += 0.2
    BatchState.of(copies, once=True).edges(CUTOFF)
    copies[5] = perfect * (1, 1, 2)
    BatchState.of(copies, once=True).edges(CUTOFF)
    assert searched == [12, 12]


def test_messages_number_the_structures_of_a_list(monkeypatch):
    broken = Atoms("CO", positions=[[0, 0, 0], [0, 0, 0]])
    state = BatchState.of([bulk("Si"), broken], once=True, first=40)
    with pytest.raises(StructureError, match=r"^structure 41 \(CO\): atoms 0 and 1 are 0 Angstrom apart"):
        state.edges(5.0)
    with pytest.raises(StructureError, match=r"^structure 41 \(CO\)"):
        state.select([1, 0, 1]).edges(5.0)
