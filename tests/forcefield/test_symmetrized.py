"""Inversion averaging, on a force field that breaks mirror images by construction."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list
from small_force_field import assert_equal

from esen_flows.errors import UnknownElementError
from esen_flows.forcefield.contract import Declaration, Evaluation, ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.forcefield.symmetrized import Symmetrized, with_parity
from esen_flows.forcefield.symmetry_images import inverted
from esen_flows.physics.relax import relax_many
from esen_flows.schemas.protocols import RelaxProtocol
from esen_flows.structures.inputs import AnyStructures, as_structures
from esen_flows.testing import check_force_field

CUTOFF = 4.0


class ChiralForceField(ForceField):
    """A smooth pair energy plus, per atom, the triple product a.(b x c) of three weighted sums of neighbour vectors.

    The triple product is invariant under rotations and changes sign in a mirror: SO(3), not O(3). Forces and stress
    are gradients, so that all of it is conservative.
    """

    key = "chiral"
    label = "chiral"

    def __init__(self, chirality: float = 0.5) -> None:
        self.chirality = chirality
        self.force_evaluations = 0
        self.batches: list[int] = []
        self.declaration = Declaration(True, "SO3", True, None, "float64", cutoff_angstrom=CUTOFF)

    def evaluate(self, structures: AnyStructures) -> list[Evaluation]:
        structures = as_structures(structures)
        self.batches.append(len(structures))
        self.force_evaluations += len(structures)
        return [self._one(atoms) for atoms in structures]

    def hessian_vector_products(self, atoms: Atoms, vectors: np.ndarray) -> np.ndarray:
        self.force_evaluations += len(vectors)
        positions, _, per_atom = self._energies(atoms)
        (gradient,) = torch.autograd.grad(per_atom.sum(), positions, create_graph=True)
        products = [
            torch.autograd.grad(gradient, positions, torch.tensor(vector), retain_graph=True)[0] for vector in vectors
        ]
        return torch.stack(products).numpy()

    def _one(self, atoms: Atoms) -> Evaluation:
        positions, strain, per_atom = self._energies(atoms)
        by_positions, by_strain = torch.autograd.grad(per_atom.sum(), [positions, strain])
        volume = abs(np.linalg.det(atoms.cell.array))
        stress = by_strain.numpy() / volume if volume > 0 else np.full((3, 3), np.nan)
        energies = per_atom.detach().numpy()
        return Evaluation(float(energies.sum()), -by_positions.numpy(), stress, energies)

    def _energies(self, atoms: Atoms) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Positions, strain and the per-atom energies that depend on them."""
        centre, neighbour, shift = neighbor_list("ijS", atoms, CUTOFF)
        positions = torch.tensor(atoms.positions, requires_grad=True)
        strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
        deformation = torch.eye(3, dtype=torch.float64) + (strain + strain.T) / 2
        images = torch.tensor(shift @ atoms.cell.array)
        vectors = (positions[neighbour] - positions[centre] + images) @ deformation
        distance = vectors.norm(dim=1, keepdim=True)
        window = (1 - (distance / CUTOFF) ** 2) ** 3

        def sum_over_neighbours(values: torch.Tensor) -> torch.Tensor:
            total = torch.zeros(len(atoms), values.shape[1], dtype=torch.float64)
            return total.index_add(0, torch.tensor(centre), values)

        a, b, c = (sum_over_neighbours(window * vectors * distance**power) for power in (0, 1, 2))
        pair = sum_over_neighbours(window * torch.exp(-distance)).squeeze(1)
        per_atom = pair + self.chirality * (a * torch.linalg.cross(b, c)).sum(1)
        return positions, strain, per_atom


@pytest.fixture(name="crystal")
def _crystal() -> Atoms:
    atoms = bulk("Si", cubic=True)
    atoms.set_cell(atoms.cell.array @ np.array([[1.02, 0.01, 0], [0, 1, 0.03], [0, 0, 0.98]]), scale_atoms=True)
    atoms.rattle(0.15, seed=3)
    return atoms


# Proper rotations follow from SO(3); a reflection is a rotation times the inversion, and is what a phonon code uses.
REFLECTION = np.diag([1.0, -1.0, 1.0])


def _reflection_error(force_field: ForceField, atoms: Atoms) -> float:
    image = atoms.copy()
    image.set_cell(atoms.cell.array @ REFLECTION)
    image.positions = atoms.positions @ REFLECTION
    original, mirrored = force_field.evaluate([atoms, image])
    return max(
        abs(original.energy - mirrored.energy),
        np.abs(original.forces - mirrored.forces @ REFLECTION).max(),
        np.abs(original.stress - REFLECTION @ mirrored.stress @ REFLECTION).max(),
    )


def test_averaging_restores_mirror_symmetry(crystal):
    chiral = ChiralForceField()
    assert _reflection_error(chiral, crystal) > 1e-2
    assert _reflection_error(Symmetrized(chiral), crystal) < 1e-12


def test_averaging_removes_exactly_the_odd_part(crystal):
    with_chirality = Symmetrized(ChiralForceField()).evaluate([crystal])
    assert_equal(with_chirality, ChiralForceField(chirality=0.0).evaluate([crystal]))


def test_the_average_passes_the_contract_as_o3(crystal):
    wrapped = Symmetrized(ChiralForceField())
    deviations = check_force_field(wrapped, [crystal, bulk("Cu").repeat((1, 1, 2))])
    assert wrapped.declaration.equivariance == "O3"
    assert deviations["inversion"] < 1e-12


def test_hessian_is_averaged_and_counted(crystal):
    directions = np.random.default_rng(0).normal(size=(2, len(crystal), 3))
    wrapped = Symmetrized(ChiralForceField())
    without = ChiralForceField(chirality=0.0).hessian_vector_products(crystal, directions)
    np.testing.assert_allclose(wrapped.hessian_vector_products(crystal, directions), without, atol=1e-12)
    assert np.abs(wrapped.inner.hessian_vector_products(crystal, directions) - without).max() > 1e-2
    assert wrapped.declaration.differentiable
    assert wrapped.force_evaluations == 4


def test_inner_force_field_itself_breaks_only_mirrors(crystal):
    assert check_force_field(ChiralForceField(), [crystal])["inversion"] > 1e-2


def test_both_evaluations_are_one_batch_and_are_counted(crystal):
    chiral = ChiralForceField()
    wrapped = Symmetrized(chiral)
    wrapped.evaluate([crystal, crystal, crystal])
    assert chiral.batches == [6]
    assert wrapped.force_evaluations == chiral.force_evaluations == 6


def test_inverted_keeps_the_lattice_the_order_and_the_original(crystal):
    before = crystal.positions.copy()
    image = inverted(crystal)
    np.testing.assert_array_equal(image.positions, -before)
    np.testing.assert_array_equal(image.cell.array, crystal.cell.array)
    np.testing.assert_array_equal(crystal.positions, before)
    # The same crystal as with the cell negated too: all interatomic distances agree.
    both = image.copy()
    both.set_cell(-crystal.cell.array)
    distances = [np.sort(neighbor_list("d", atoms, CUTOFF)) for atoms in (crystal, image, both)]
    np.testing.assert_allclose(distances[1], distances[0], atol=1e-10)
    np.testing.assert_allclose(distances[2], distances[0], atol=1e-10)


def test_a_molecule_without_stress_is_averaged():
    ethanol = molecule("CH3CH2OH")
    ethanol.rattle(0.1, seed=1)
    (result,) = Symmetrized(ChiralForceField()).evaluate([ethanol])
    (without,) = ChiralForceField(chirality=0.0).evaluate([ethanol])
    np.testing.assert_allclose(result.forces, without.forces, atol=1e-12)
    assert np.isnan(result.stress).all()


def test_key_and_label_differ_from_those_of_the_inner_force_field():
    chiral = ChiralForceField()
    wrapped = Symmetrized(chiral)
    assert wrapped.key == Symmetrized(ChiralForceField()).key
    assert wrapped.key != chiral.key
    other = ChiralForceField()
    other.key = "another"
    assert Symmetrized(other).key != wrapped.key
    assert wrapped.label != chiral.label


def test_approximate_equivariance_stays_approximate():
    chiral = ChiralForceField()
    chiral.declaration = Declaration(True, "approximate", False, None, "float64")
    assert Symmetrized(chiral).declaration.equivariance == "approximate"


def test_with_parity_wraps_only_where_it_changes_something():
    chiral = ChiralForceField()
    assert with_parity(chiral, "as_is") is chiral
    wrapped = with_parity(chiral, "average")
    assert isinstance(wrapped, Symmetrized)
    assert with_parity(wrapped, "average") is wrapped
    with pytest.raises(ValueError, match="got 'both'"):
        with_parity(chiral, "both")


def test_messages_number_the_structures_and_not_their_images():
    force_field = with_parity(load_force_field("esen_silicon"), "average")
    with pytest.raises(UnknownElementError, match=r"^structure 2 \(Ge2\) holds Ge, which 'esen_silicon' never saw"):
        force_field.evaluate([bulk("Si"), bulk("Si"), bulk("Ge")])


@pytest.mark.parametrize("parity", ["as_is", "average"])
def test_messages_of_moving_structures_have_no_number(parity):
    # A batch of relaxations changes while it runs, so that a number in it would be that of no list of the caller.
    force_field = with_parity(load_force_field("esen_silicon"), parity)
    outcomes = dict(relax_many([bulk("Si"), bulk("Ge")], force_field, RelaxProtocol()))
    assert str(outcomes[1]).startswith("Ge2 holds Ge, which 'esen_silicon' never saw")
