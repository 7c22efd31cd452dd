import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from esen_flows.errors import StructureError, SymmetryBrokenError
from esen_flows.forcefield.contract import Evaluation
from esen_flows.physics.relax_start import RelaxationTrajectory, output_of, start_of
from esen_flows.schemas.protocols import RelaxProtocol


def trajectory_to(atoms: Atoms) -> RelaxationTrajectory:
    nothing = Evaluation(0.0, np.zeros((len(atoms), 3)), np.zeros((3, 3)))
    return RelaxationTrajectory(atoms, atoms.cell.array, nothing, fmax=0.0, converged=True, energies=[0.0])


def test_symmetry_lost_in_spite_of_a_constraint_is_an_error() -> None:
    first, last = bulk("Cu", cubic=True), bulk("Cu", cubic=True)
    last.positions[1, 2] += 0.05
    with pytest.raises(SymmetryBrokenError, match=r"Cu4 had 192 symmetry operations .* has 8 after .* symmetry=fix"):
        output_of(first, trajectory_to(last), RelaxProtocol(symmetry="fix"))
    assert output_of(first, trajectory_to(last), RelaxProtocol()).space_group_final == 99
    # More symmetry than before is no error.
    assert output_of(last, trajectory_to(first), RelaxProtocol(symmetry="lock")).space_group_final == 225


@pytest.mark.parametrize("symmetry", ["fix", "lock"])
def test_a_start_is_put_exactly_on_its_symmetry(symmetry: str) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.rattle(1e-3, seed=1)
    start = start_of(atoms, RelaxProtocol(symmetry=symmetry, symprec_angstrom=0.02))
    moved = start.atoms.positions - atoms.positions
    assert 1e-4 < np.abs(moved).max() < 5e-3
    apart = start.atoms.get_all_distances(mic=True)
    assert apart[apart > 0].min() == pytest.approx(np.linalg.norm(start.atoms.cell.array[0]) / 2, abs=1e-9)
    assert (start.lock is None, start.fixed is None) == ((True, False) if symmetry == "fix" else (False, True))


@pytest.mark.parametrize("symmetry", ["fix", "lock"])
def test_a_crystal_whose_symmetry_is_not_found_is_not_relaxed_without_it(symmetry: str) -> None:
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 0.6]], cell=[3.0, 3.0, 3.0], pbc=True)
    protocol = RelaxProtocol(symmetry=symmetry, symprec_angstrom=1.0)
    with pytest.raises(StructureError, match=r"no space group found for Cu2 .* relax with symmetry=free"):
        start_of(atoms, protocol)
    atoms.pbc = (True, True, False)  # slabs have no space group
    assert start_of(atoms, protocol.model_copy(update={"relax_cell": False})).lock is None
