"""The way out of imaginary modes, on a double well with analytical ground states."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from double_well import LENGTH, DoubleWell, crystal

from esen_flows.errors import InputError, NotConvergedError
from esen_flows.physics.exploration import Found, Steps, explore
from esen_flows.physics.isotropy import invariant_directions
from esen_flows.physics.relax import relax
from esen_flows.physics.symmetry import space_group_number
from esen_flows.schemas.branches import BranchProtocol
from esen_flows.schemas.documents import RelaxOutput
from esen_flows.schemas.exploration import ExplorationProtocol
from esen_flows.schemas.protocols import RelaxProtocol

PROTOCOL = RelaxProtocol(
    symmetry="explore", relax_cell=False, fmax_ev_per_angstrom=1e-5, exploration={"min_length_angstrom": 3.0}
)

FEW_BRANCHES = PROTOCOL.exploration.model_copy(update={"max_depth": 1, "max_directions": 1})


def cubic(*, inversion: bool) -> np.ndarray:
    """All matrices of O_h, or of T_d, on vectors."""
    signs = np.array(np.meshgrid(*[[1, -1]] * 3)).reshape(3, -1).T
    orders = np.array([[0, 1, 2], [1, 2, 0], [2, 0, 1], [1, 0, 2], [0, 2, 1], [2, 1, 0]])
    group = np.array([np.eye(3)[order] * sign for order in orders for sign in signs])
    return group if inversion else group[[np.prod(g.sum(axis=0)) > 0 for g in group]]


def test_directions_of_a_vector_in_cubic_groups() -> None:
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    for inversion, expected in (
        (True, [(8, False, 1.0), (6, False, 1 / 3), (4, False, 1 / 2)]),  # C4v, C3v, C2v
        (False, [(6, True, 1 / 3), (4, False, 1.0)]),  # C3v with two different ends, C2v
    ):
        found = invariant_directions(rotation @ cubic(inversion=inversion) @ rotation.T)
        powers = [((rotation.T @ one.components) ** 4).sum() for one in found]
        assert [(one.order, one.two_sided) for one in found] == [(order, two) for order, two, _ in expected]
        assert powers == pytest.approx([power for *_, power in expected], abs=1e-6)


@pytest.fixture(scope="module")
def explored() -> RelaxOutput:
    return explore(crystal(), Steps(DoubleWell()), PROTOCOL)


def test_the_branches_of_a_double_well_are_analytical(explored: RelaxOutput) -> None:
    branches, field = explored.branches, DoubleWell()
    assert branches is not None
    assert [(one.space_group, one.parent, one.depth, one.snapped) for one in branches] == [
        (221, None, 0, False), (99, 0, 1, False), (160, 0, 1, False), (38, 0, 1, False),
    ]  # fmt: skip
    energies = [2 * one.energy_per_atom_ev for one in branches]
    assert energies == pytest.approx([0.0, field.minimum(1), field.minimum(1 / 3), field.minimum(1 / 2)], abs=1e-9)
    # At Gamma the rigid lattice of Cs moves against that of Cl: eigenvalue -2 well over the reduced mass.
    reduced = 1 / (1 / 132.9055 + 1 / 35.453)
    hertz = np.sqrt(2 * field.well * 1e20 * units._e / (reduced * units._amu)) / (2 * np.pi)
    assert branches[0].lowest_frequency_thz == pytest.approx(-hertz * 1e-12, rel=1e-3)
    assert branches[2].q_point == (0.0, 0.0, 0.0)


def test_the_lowest_branch_is_stable_and_has_exactly_its_subgroup(explored: RelaxOutput) -> None:
    assert explored.branches is not None
    assert (explored.space_group_initial, explored.space_group_final) == (221, 160)
    assert [one.verdict for one in explored.branches] == ["unstable", "", "stable", ""]
    assert explored.energy_ev == pytest.approx(DoubleWell().minimum(1 / 3), abs=1e-9)
    assert space_group_number(explored.structure.to_atoms(), 1e-5) == 160


def test_a_stable_crystal_is_its_locked_relaxation() -> None:
    field, doubled = DoubleWell(well=-0.2), {"exploration": ExplorationProtocol(min_length_angstrom=8.0)}
    found = explore(crystal(), Steps(field), PROTOCOL.model_copy(update=doubled))
    locked = relax(crystal(), field, PROTOCOL.model_copy(update={"symmetry": "lock"}))
    assert found.branches is not None
    assert [one.verdict for one in found.branches] == ["stable"]
    assert np.array_equal(found.structure.positions_angstrom, locked.structure.positions_angstrom)
    assert found.energy_ev == locked.energy_ev


def test_a_start_is_deformed_once() -> None:
    stretched = {"deformation": tuple(map(tuple, 1.02 * np.eye(3))), "exploration": FEW_BRANCHES}
    found = explore(crystal(), Steps(DoubleWell()), PROTOCOL.model_copy(update=stretched))
    assert found.branches is not None
    assert [one.verdict for one in found.branches] == ["unstable", "unstable"]  # a deformed branch would be higher
    volume = found.structure.to_atoms().get_volume() / (len(found.structure.numbers) / 2)
    assert volume == pytest.approx((1.02 * LENGTH) ** 3)


def test_steps_have_the_keys_that_they_share_with_other_explorations() -> None:
    class Noting(Steps):
        def locked(self, atoms, protocol) -> Found:
            asked.append(protocol.hash())
            return super().locked(atoms, protocol)

        def branch(self, found, forces_key, mode, protocol) -> Found:
            asked.append(protocol.hash())
            raise NotConvergedError("too many steps")

    plain = PROTOCOL.model_copy(update={"symmetry": "lock", "exploration": ExplorationProtocol()})
    hashes = []
    for changed in ({}, {"max_depth": 1}, {"amplitudes_angstrom": (0.1, 0.2)}):
        asked: list[str] = []
        exploration = FEW_BRANCHES.model_copy(update={"max_depth": 4, **changed})
        explore(crystal(), Noting(DoubleWell()), PROTOCOL.model_copy(update={"exploration": exploration}))
        hashes.append(asked)
    default, shallow, farther = hashes
    assert default == shallow == [plain.hash(), BranchProtocol(relax=plain).hash()]
    assert farther[0] == plain.hash()
    assert farther[1] != default[1]


def test_a_failed_branch_is_noted_and_the_depth_is_a_limit() -> None:
    class Failing(Steps):
        def branch(self, found, forces_key, mode, protocol) -> Found:
            if protocol.direction == 1:
                raise NotConvergedError("too many steps")
            return super().branch(found, forces_key, mode, protocol)

    shallow = PROTOCOL.model_copy(update={"exploration": PROTOCOL.exploration.model_copy(update={"max_depth": 1})})
    found = explore(crystal(), Failing(DoubleWell()), shallow)
    assert found.branches is not None
    assert [one.verdict for one in found.branches] == ["unstable", "", "failed", "unstable"]
    assert found.branches[2].failure == "NotConvergedError: too many steps"
    assert found.space_group_final == 38  # a saddle between body diagonals


def test_what_cannot_be_explored_is_refused(metals) -> None:
    with pytest.raises(InputError, match="only crystals"):
        explore(Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.3]]), Steps(metals), PROTOCOL)
    with pytest.raises(InputError, match=r"exploration\.explore"):
        relax(bulk("Cu"), metals, PROTOCOL)
    with pytest.raises(ValueError, match="would not be seen"):
        RelaxProtocol(symmetry="explore", symprec_angstrom=0.04)
