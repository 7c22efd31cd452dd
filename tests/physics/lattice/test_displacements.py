import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, make_supercell, molecule

from esen_flows.errors import InputError, NotConservativeError, StructureError
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.lattice.anharmonic import AnharmonicLattice
from esen_flows.physics.lattice.datasets import entries, included
from esen_flows.physics.lattice.displacements import displaced_forces, supercell_matrices
from esen_flows.schemas.lattice_documents import ForcesOutput
from esen_flows.schemas.protocols import DisplacementProtocol

THIRD = DisplacementProtocol(order=3, displacement_angstrom=0.03, fc2_supercell=(2, 2, 2), fc3_supercell=(1, 1, 1))


@pytest.fixture(scope="module")
def silicon_small() -> tuple[Atoms, ForceField]:
    return bulk("Si", "diamond", a=5.46663), load_force_field("esen_silicon")


def displaced_cells(output: ForcesOutput) -> list[Atoms]:
    """The supercells of a third-order result, built from the dataset alone: first atoms, then pairs."""
    perfect = make_supercell(output.unitcell.to_atoms(), output.supercell_matrix_fc3, order="atom-major")
    firsts = output.displacements_fc3["first_atoms"]
    moves = [[first] for first in firsts] + [[first, second] for first in firsts for second in first["second_atoms"]]
    cells = []
    for displacements in moves:
        cell = perfect.copy()
        for entry in displacements:
            cell.positions[entry["number"]] += entry["displacement"]
        cells.append(cell)
    return cells


def test_batches_equal_one_by_one_evaluation_of_the_dataset(argon, argon_force_field) -> None:
    seen: list[tuple[int, int]] = []
    output = displaced_forces(
        argon, argon_force_field, THIRD, lambda done, total: seen.append((done, total)), atoms_per_batch=70
    )
    total = len(output.forces_fc3) + len(output.forces_fc2)
    assert output.forces_fc3.shape[1:] == (4, 3)
    assert output.forces_fc2.shape[1:] == (32, 3)
    assert output.n_evaluations == argon_force_field.force_evaluations == total
    sizes = [min(70 // 4, len(output.forces_fc3) - i) for i in range(0, len(output.forces_fc3), 70 // 4)]
    assert seen == [(int(done), total) for done in np.cumsum([0, *sizes, *([1] * len(output.forces_fc2))])]
    one_by_one = [argon_force_field.evaluate([cell])[0].forces for cell in displaced_cells(output)]
    assert output.forces_fc3 == pytest.approx(np.array(one_by_one), abs=1e-13)
    for entry in entries(output.displacements_fc3):
        assert np.linalg.norm(entry["displacement"]) == pytest.approx(0.03)
        assert "forces" not in entry


def test_a_force_field_decides_how_many_supercells_it_gets(argon, argon_force_field, monkeypatch) -> None:
    sizes: list[int] = []
    evaluate = argon_force_field.evaluate
    monkeypatch.setattr(argon_force_field, "evaluate", lambda cells: sizes.append(len(cells)) or evaluate(cells))
    monkeypatch.setattr(argon_force_field, "atoms_at_once", lambda cell: 5 * len(cell))
    output = displaced_forces(argon, argon_force_field, THIRD)
    assert set(sizes[: len(output.forces_fc3) // 5]) == {5}
    assert sum(sizes) == len(output.forces_fc3) + len(output.forces_fc2)


@pytest.mark.parametrize("left_in", ["fc3", "fc2"])
def test_interrupted_work_continues_where_it_stopped(argon, argon_force_field, left_in: str) -> None:
    whole = displaced_forces(argon, argon_force_field, THIRD)
    enough = 4 if left_in == "fc3" else len(whole.forces_fc3) * 4 + 1  # atoms
    saved: list[np.ndarray] = []

    def interrupt(forces: np.ndarray) -> None:
        saved.append(forces)
        if len(forces) >= enough:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        displaced_forces(argon, argon_force_field, THIRD, on_forces=interrupt, atoms_per_batch=8)
    seen: list[int] = []
    rest = displaced_forces(
        argon, argon_force_field, THIRD, lambda done, total: seen.append(done), known=saved[-1], atoms_per_batch=8
    )
    done = 2 if left_in == "fc3" else len(whole.forces_fc3) + 1
    assert seen[-1] == whole.n_evaluations
    assert rest.n_evaluations == whole.n_evaluations - done
    assert rest.forces_fc3 == pytest.approx(whole.forces_fc3, abs=1e-13)
    assert rest.forces_fc2 == pytest.approx(whole.forces_fc2, abs=1e-13)
    known = saved[-1].reshape(-1)
    assert np.array_equal(np.concatenate([rest.forces_fc3.ravel(), rest.forces_fc2.ravel()])[: len(known)], known)


def test_same_supercell_serves_both_orders(argon, argon_force_field) -> None:
    protocol = THIRD.model_copy(update={"fc2_supercell": THIRD.fc3_supercell})
    output = displaced_forces(argon, argon_force_field, protocol)
    assert output.n_evaluations == len(output.forces_fc3)
    assert len(output.forces_fc2) == len(output.displacements_fc2["first_atoms"])
    assert np.array_equal(output.forces_fc2, output.forces_fc3[: len(output.forces_fc2)])


def test_result_does_not_depend_on_the_cell_given(argon, argon_force_field) -> None:
    protocol = DisplacementProtocol(fc2_supercell=(1, 1, 1))
    primitive = displaced_forces(argon, argon_force_field, protocol)
    cubic = displaced_forces(
        bulk("Ar", "fcc", a=argon.cell.lengths()[0] * np.sqrt(2), cubic=True), argon_force_field, protocol
    )
    double = displaced_forces(argon.repeat((1, 2, 1)), argon_force_field, protocol)
    for other in (cubic, double):
        assert len(other.unitcell.numbers) == 4
        assert np.sort(np.abs(other.forces_fc2), axis=None) == pytest.approx(
            np.sort(np.abs(primitive.forces_fc2), axis=None), abs=1e-12
        )


def test_parity_average_removes_what_is_even_under_inversion(argon, argon_force_field, mirrorless) -> None:
    protocol = DisplacementProtocol(fc2_supercell=(1, 1, 1))
    exact = displaced_forces(argon, argon_force_field, protocol)
    assert (exact.parity, exact.parity_averaged) == ("average", False)
    averaged = displaced_forces(argon, mirrorless, protocol)
    assert averaged.parity_averaged
    assert averaged.n_evaluations == 2 * exact.n_evaluations
    assert set(mirrorless.batches) == {2 * len(exact.forces_fc2)}
    assert averaged.forces_fc2 == pytest.approx(exact.forces_fc2, abs=1e-15)
    as_is = displaced_forces(argon, mirrorless, protocol.model_copy(update={"parity": "as_is"}))
    assert not as_is.parity_averaged
    assert as_is.forces_fc2 - exact.forces_fc2 == pytest.approx(
        np.broadcast_to([1e-3, -2e-3, 5e-4], exact.forces_fc2.shape), abs=1e-12
    )


@pytest.mark.parametrize(
    ("atoms", "periodic"), [(molecule("H2O"), 0), (fcc111("Cu", (1, 1, 2), vacuum=5.0), 2)], ids=["molecule", "slab"]
)
def test_molecules_and_slabs_are_refused(metals, atoms: Atoms, periodic: int) -> None:
    with pytest.raises(StructureError, match=f"periodic in {periodic} of 3 directions; lattice dynamics needs"):
        displaced_forces(atoms, metals, THIRD)
    assert metals.force_evaluations == 0


def test_forces_that_are_no_gradient_are_refused(not_conservative) -> None:
    with pytest.raises(NotConservativeError, match="lattice dynamics needs forces that are the gradient"):
        displaced_forces(bulk("Cu"), not_conservative, THIRD)


def test_direct_forces_are_refused_unless_accepted(not_conservative) -> None:
    """Acceptance is a part of the protocol, and so of the key."""
    with pytest.raises(ValueError, match=r"not the gradient of an energy.*accept_direct=true to compute with them"):
        DisplacementProtocol(forces="direct")
    with pytest.raises(ValueError, match="forces is conservative; leave accept_direct out"):
        DisplacementProtocol(accept_direct=True)
    protocol = DisplacementProtocol(fc2_supercell=(1, 1, 1), forces="direct", accept_direct=True)
    output = displaced_forces(bulk("Cu"), not_conservative, protocol)
    assert output.n_evaluations == len(output.forces_fc2)
    assert np.abs(output.forces_fc2.sum(axis=1)).max() < 1e-12
    plain = DisplacementProtocol(fc2_supercell=(1, 1, 1))
    assert plain.key_fields().keys() & {"forces", "accept_direct"} == set()
    assert plain.hash() != protocol.hash()


def test_supercells_by_length_are_the_smallest_that_are_long_enough() -> None:
    unitcell = Atoms("Po", cell=[3.0, 4.0, 7.6], pbc=True)
    fc2, fc3 = supercell_matrices(unitcell, DisplacementProtocol(order=3))
    assert np.diag(fc2).tolist() == [5, 4, 2]
    assert np.diag(fc3).tolist() == [4, 3, 2]
    assert supercell_matrices(unitcell, DisplacementProtocol(order=2))[1] is None
    # A length of 2.9999999 counts as 3.
    unitcell.cell[0, 0] -= 1e-7
    assert supercell_matrices(unitcell, DisplacementProtocol(order=2))[0][0, 0] == 5


@pytest.mark.parametrize("force_constants", ["finite_displacement", "autodiff"])
def test_pairs_beyond_the_cutoff_are_not_evaluated(silicon_small, force_constants) -> None:
    atoms, force_field = silicon_small
    changes = {"fc2_supercell": THIRD.fc3_supercell, "force_constants": force_constants}
    protocol = THIRD.model_copy(update=changes)
    everything = displaced_forces(atoms, force_field, protocol)
    near = displaced_forces(atoms, force_field, protocol.model_copy(update={"fc3_pair_cutoff_angstrom": 2.5}))
    kept = np.array([included(entry) for entry in entries(near.displacements_fc3)])
    assert 0 < kept.sum() < len(kept) == len(everything.forces_fc3)
    assert near.n_evaluations < everything.n_evaluations
    assert near.forces_fc3[kept] == pytest.approx(everything.forces_fc3[kept], abs=1e-12)
    assert not near.forces_fc3[~kept].any()
    # On-site force constants come from pairs at distance zero, so that the cutoff hardly changes them.
    fc3, all_fc3 = AnharmonicLattice(near).fc3[0, 0, 0], AnharmonicLattice(everything).fc3[0, 0, 0]
    assert fc3 == pytest.approx(all_fc3, abs=0.1 * np.abs(all_fc3).max())
    wide = protocol.model_copy(update={"fc3_pair_cutoff_angstrom": 50.0})
    assert displaced_forces(atoms, force_field, wide).forces_fc3 == pytest.approx(everything.forces_fc3, abs=1e-12)


@pytest.mark.parametrize("order", [2, 3])
def test_a_supercell_beyond_all_memory_is_refused_before_it_is_built(order: int) -> None:
    vast = DisplacementProtocol(order=order, fc2_supercell=(20, 20, 20), fc3_min_length_angstrom=1000.0)
    cell = bulk("Si", cubic=True) * (2, 2, 2)
    with pytest.raises(InputError, match=r"has 512000 atoms, more than the 100000 that are computed"):
        supercell_matrices(cell, vast)
