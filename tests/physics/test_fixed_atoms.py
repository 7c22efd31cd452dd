"""Fixed atoms and components stay where they are in relaxations of positions, alone and in batches."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixCartesian, FixScaled
from ase.optimize import FIRE, LBFGS

from esen_flows.errors import StructureError
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.physics.relax import relax, relax_many
from esen_flows.physics.relax_start import free_directions
from esen_flows.schemas.atom_properties import AtomProperties, properties_of
from esen_flows.schemas.protocols import DisplacementProtocol, RelaxProtocol

PROTOCOL = RelaxProtocol(relax_cell=False, fmax_ev_per_angstrom=5e-3)


def slab(*constraints: Any) -> Atoms:
    """Four stretched layers of aluminium, two atoms each, in a sheared cell."""
    atoms = fcc111("Al", (1, 2, 4), vacuum=6.0, periodic=True)
    atoms.positions[:, 2] *= 1.03
    atoms.rattle(0.05, seed=3)
    atoms.set_constraint(list(constraints))
    return atoms


CONSTRAINTS: dict[str, Callable[[], list[Any]]] = {
    "atoms": lambda: [FixAtoms([0, 1, 2])],
    "components": lambda: [FixCartesian([0, 1], (True, True, False)), FixAtoms([3])],
    "along lattice vectors": lambda: [FixScaled([0, 1, 5], (False, True, True))],
    "all kinds": lambda: [FixAtoms([0]), FixCartesian(1, (False, False, True)), FixScaled(2, (True, False, False))],
}


def held(before: Atoms, after: Atoms) -> None:
    """Assert that the fixed coordinates of a structure are where they were, and that others have moved."""
    properties = properties_of(before)
    moved = after.positions - before.positions
    fractions = moved @ np.linalg.inv(before.cell.array)
    if properties.fixed_cartesian is not None:
        assert np.abs(moved[properties.fixed_cartesian]).max() < 1e-12
    if properties.fixed_fractional is not None:
        assert np.abs(fractions[properties.fixed_fractional]).max() < 1e-12
    assert np.abs(moved).max() > 0.01


@pytest.mark.parametrize("optimizer", ["fire", "lbfgs"])
@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_fixed_coordinates_stay(kind: str, optimizer: str, metals) -> None:
    start = slab(*CONSTRAINTS[kind]())
    output = relax(start, metals, PROTOCOL.model_copy(update={"optimizer": optimizer}))
    assert output.converged
    end = output.structure.to_atoms()
    held(start, end)
    assert properties_of(end).lists() == properties_of(start).lists()
    # At the minimum of the free coordinates nothing acts on them, but forces act on the others.
    free = free_directions(properties_of(start), start.cell.array)
    acting = np.einsum("aij,aj->ai", free, output.forces_ev_per_angstrom)
    assert np.linalg.norm(acting, axis=1).max() == pytest.approx(output.fmax_ev_per_angstrom)
    assert np.linalg.norm(output.forces_ev_per_angstrom, axis=1).max() > 2 * PROTOCOL.fmax_ev_per_angstrom


@pytest.mark.parametrize("optimizer", [FIRE, LBFGS])
def test_the_trajectory_is_that_of_ase(optimizer: type, metals) -> None:
    start = slab(*CONSTRAINTS["components"]())
    work = start.copy()
    work.calc = EMT()
    optimizer(work, logfile=None).run(fmax=PROTOCOL.fmax_ev_per_angstrom, steps=500)
    output = relax(start, metals, PROTOCOL.model_copy(update={"optimizer": optimizer.__name__.lower()}))
    np.testing.assert_allclose(output.structure.positions_angstrom, work.positions, atol=1e-9)
    assert output.energy_ev == pytest.approx(work.get_potential_energy(), abs=1e-10)


def test_a_batch_of_free_and_fixed_structures(metals) -> None:
    molecule_with_one_fixed = molecule("CO")
    molecule_with_one_fixed.set_constraint(FixAtoms([0]))
    starts = [slab(), *(slab(*make()) for make in CONSTRAINTS.values()), molecule_with_one_fixed]
    together = dict(relax_many(starts, metals, PROTOCOL))
    for number, start in enumerate(starts):
        alone = relax(start, metals, PROTOCOL)
        np.testing.assert_allclose(
            together[number].structure.positions_angstrom, alone.structure.positions_angstrom, atol=1e-10
        )
    assert len({round(together[number].energy_ev, 6) for number in range(5)}) == 5  # other answers
    np.testing.assert_array_equal(together[5].structure.positions_angstrom[0], molecule_with_one_fixed.positions[0])


def test_ase_keeps_the_fixed_atoms_of_a_molecule(metals) -> None:
    start = molecule("CO")
    start.set_constraint(FixAtoms([0]))
    output = relax(start, metals, RelaxProtocol(symmetry="fix"))
    np.testing.assert_array_equal(output.structure.positions_angstrom[0], start.positions[0])
    assert properties_of(output.structure.to_atoms()).is_constrained


def test_what_cannot_be_obeyed_is_refused(metals) -> None:
    start = slab(FixAtoms([0]))
    with pytest.raises(StructureError, match=r"Al8 has fixed atoms .* set relax_cell=false"):
        relax(start, metals, RelaxProtocol())
    with pytest.raises(StructureError, match="symmetry=lock would move"):
        relax(start, metals, RelaxProtocol(relax_cell=False, symmetry="lock"))
    with pytest.raises(StructureError, match="lattice dynamics moves every atom, but Al8 has fixed atoms"):
        displaced_forces(start, metals, DisplacementProtocol())


def test_directions_of_a_sheared_cell() -> None:
    cell = np.array([[2.0, 0, 0], [1.0, 3.0, 0], [0.5, 0.4, 4.0]])
    fixed = AtomProperties(fixed_fractional=np.array([[False, False, True], [True, True, False], [False] * 3]))
    free = free_directions(fixed, cell)
    assert free is not None
    # In the plane of a and b, along c, and everywhere.
    np.testing.assert_allclose(free[0] @ cell[:2].T, cell[:2].T, atol=1e-14)
    np.testing.assert_allclose(free[1], np.outer(cell[2], cell[2]) / (cell[2] @ cell[2]), atol=1e-14)
    np.testing.assert_allclose(free[2], np.eye(3), atol=1e-14)
    assert [round(float(np.trace(one))) for one in free] == [2, 1, 3]


def test_cells_of_absurd_size_are_refused_before_anything_is_computed(metals) -> None:
    huge = Atoms("Al", cell=[1e300] * 3, pbc=True)
    for protocol in (RelaxProtocol(), RelaxProtocol(relax_cell=False)):
        with pytest.raises(StructureError, match="cell vectors of 1e"):
            relax(huge, metals, protocol)
    with pytest.raises(StructureError, match="cell vectors of 1e"):
        displaced_forces(huge, metals, DisplacementProtocol())
