"""Averages over rotations and projections on space groups, of force fields that depend on the orientation."""

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from orientation_error import OrientationError
from pair_force_field import PairForceField
from small_force_field import small_checkpoint

from esen_flows.data.batch_state import BatchState
from esen_flows.errors import NotDifferentiableError, StructureError
from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.forcefield.contract import Declaration, Evaluation, ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.forcefield.rotations import random_rotations
from esen_flows.forcefield.symmetrized import Symmetrized, with_parity
from esen_flows.forcefield.symmetry_images import turned
from esen_flows.network.edge_transformer.config import EdgeTransformerConfig
from esen_flows.network.edge_transformer.edge_transformer import EdgeTransformer
from esen_flows.physics.conservation.symmetry import rotation_force_error
from esen_flows.physics.force_symmetry import along, symmetrized
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.physics.md.dynamics import molecular_dynamics
from esen_flows.physics.relax import relax
from esen_flows.physics.static import static
from esen_flows.physics.symmetry import space_group_number
from esen_flows.schemas.audit import MeasurementsProtocol
from esen_flows.schemas.force_symmetry import ForceSymmetry
from esen_flows.schemas.md import MDProtocol
from esen_flows.schemas.protocols import (
    ConductivityProtocol,
    DisplacementProtocol,
    NumericSettings,
    PhononProtocol,
    RelaxProtocol,
    StaticProtocol,
)
from esen_flows.schemas.requests import property_requests
from esen_flows.testing import check_force_field

AMPLITUDE_EV = 0.02
TILT = random_rotations(1, np.random.default_rng(3)).matrices[0]


def wrapped(force_field, text):
    return symmetrized(force_field, "as_is", ForceSymmetry.model_validate(text))


@pytest.fixture(name="copper", scope="module")
def _copper():
    return OrientationError(PairForceField(), AMPLITUDE_EV)


@pytest.fixture(name="metal", scope="module")
def _metal():
    """With an equilibrium, for relaxations."""
    return OrientationError(load_force_field("emt"), AMPLITUDE_EV / 10)


@pytest.fixture(name="transformer", scope="module")
def _transformer():
    """An edge transformer with random weights, whose energy has parts of all degrees."""
    torch.manual_seed(1)
    config = EdgeTransformerConfig(width=8, num_gnn_layers=1, num_heads=2, cutoff_angstrom=3.5, max_num_elements=32)
    checkpoint = Checkpoint(EdgeTransformer(config), 1.7, {29: -3.0}, (14, 29), model_key="e" * 64)
    return NetworkForceField(checkpoint)


@pytest.fixture(name="rattled", scope="module")
def _rattled():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=2)
    return atoms


def force_error(one, other):
    return np.abs(one.forces - other.forces).max()


@pytest.mark.parametrize(
    ("text", "axes", "evaluations"),
    [
        ("icosahedral", "own", 5),
        ("octahedral", "own", 1),
        ("tetrahedral", "own", 1),
        ("icosahedral+inversion", "own", 5),
        ("icosahedral+lab", "tilted", 60),
        ("icosahedral", "tilted", 5),
        ("random:7:1", "own", 7),
    ],
)
def test_rotations_of_the_crystal_are_evaluated_once(copper, text, axes, evaluations):
    atoms = bulk("Cu", a=3.8, cubic=True)
    atoms = turned(atoms, TILT) if axes == "tilted" else atoms
    force_field = wrapped(copper, text)
    (result,) = force_field.evaluate([atoms])
    assert force_field.force_evaluations == evaluations
    by_hand = copper.evaluate([turned(atoms, turn) for turn in force_field._reference_of(atoms).turns])
    assert result.energy == pytest.approx(np.mean([one.energy for one in by_hand]), abs=1e-10)


def test_the_mean_is_that_of_the_rotated_structures(copper, rattled):
    force_field = wrapped(copper, "lebedev:6x3+lab")
    (result,) = force_field.evaluate([rattled])
    turns, weights = force_field.rotations.matrices, force_field.rotations.weights
    images = copper.evaluate([turned(rattled, turn) for turn in turns])
    forces = np.array([one.forces @ turn for one, turn in zip(images, turns, strict=True)])
    np.testing.assert_allclose(result.forces, np.tensordot(weights, forces, 1), atol=1e-12)
    stress = np.array([turn.T @ one.stress @ turn for one, turn in zip(images, turns, strict=True)])
    np.testing.assert_allclose(result.stress, np.tensordot(weights, stress, 1), atol=1e-14)
    energies = np.array([one.energy for one in images])
    deviations = (energies - result.energy) / len(rattled), forces - result.forces, stress - result.stress
    spread = [np.sqrt(np.tensordot(weights, one.reshape(len(weights), -1) ** 2, 1).mean()) for one in deviations]
    np.testing.assert_allclose(result.spread, spread, rtol=1e-9)


def test_averages_of_degree_4_remove_the_error_and_octahedra_about_the_lab_do_not(copper, rattled):
    (true,) = copper.inner.evaluate([rattled])
    errors = {
        text: force_error(wrapped(copper, text).evaluate([rattled])[0], true)
        for text in ("octahedral+lab", "icosahedral", "icosahedral+lab", "lebedev:14x6")
    }
    assert force_error(copper.evaluate([rattled])[0], true) > 3e-3
    assert errors.pop("octahedral+lab") > 1e-4
    assert max(errors.values()) < 1e-12


def test_projection_takes_no_further_evaluation_and_removes_forbidden_forces(copper):
    perfect = turned(bulk("Cu", a=3.8, cubic=True), TILT)
    force_field = wrapped(copper, "project")
    (raw,), (result,) = copper.evaluate([perfect]), force_field.evaluate([perfect])
    assert force_field.force_evaluations == 1
    assert np.abs(raw.stress - np.eye(3) * np.trace(raw.stress) / 3).max() > 1e-5
    np.testing.assert_allclose(result.stress, np.eye(3) * np.trace(raw.stress) / 3, atol=1e-15)
    assert np.abs(result.forces).max() < 1e-12
    assert result.energy == raw.energy
    with pytest.raises(StructureError, match="no space group"):
        force_field.evaluate([molecule("H2O")])
    with pytest.raises(NotDifferentiableError):
        force_field.hessian_vector_products(perfect, np.zeros((1, 4, 3)))


class OneByOne(ForceField):
    """A force field that takes lists, and evaluates every structure by itself."""

    def __init__(self, inner: ForceField) -> None:
        self.inner, self.key, self.label, self.declaration = inner, inner.key, inner.label, inner.declaration

    def evaluate(self, structures):
        return [self.inner.evaluate([atoms])[0] for atoms in structures]


@pytest.mark.parametrize("text", ["icosahedral+inversion", "random:5:1+project"])
def test_a_network_in_batches_is_the_same_as_one_image_after_the_other(transformer, rattled, text):
    structures = [rattled, bulk("Cu", a=3.8), bulk("Si")]
    force_field = wrapped(transformer, text)
    state = BatchState.of(structures)
    batch = force_field.evaluate_batch(state)
    assert state.tables is not None  # one search for all images
    listed = force_field.evaluate(structures)
    alone = wrapped(OneByOne(transformer), text).evaluate(structures)
    for number, (one, other) in enumerate(zip(listed, alone, strict=True)):
        np.testing.assert_allclose(one.forces, other.forces, atol=1e-12)
        np.testing.assert_allclose(one.stress, other.stress, atol=1e-14)
        np.testing.assert_allclose(one.energies, other.energies, atol=1e-12)
        np.testing.assert_allclose(one.spread, other.spread, atol=1e-9)
        assert float(batch.energy[number]) == pytest.approx(other.energy, abs=1e-12)
    np.testing.assert_allclose(batch.forces, np.concatenate([one.forces for one in alone]), atol=1e-12)


def test_a_crystal_keeps_its_axes_while_its_cell_changes(transformer):
    """The axes of a state are those of its templates, so that forces stay the gradient of one energy."""
    force_field = wrapped(transformer, "octahedral")
    state = BatchState.of([bulk("Cu", a=3.8, cubic=True)])
    shear = torch.tensor([[1.0, 0.0, 0.0], [0.3, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    moved = state.moved(state.positions @ shear, state.cells @ shear)
    first = force_field.evaluate_batch(state)
    assert force_field.force_evaluations == 1
    sheared = force_field.evaluate_batch(moved)
    assert force_field.force_evaluations > 4  # the shear has left few operations
    fixed = force_field.about(state.structures()[0]).evaluate(moved.structures())
    assert float(sheared.energy[0]) == pytest.approx(fixed[0].energy, abs=1e-12)
    assert float(first.energy[0]) != pytest.approx(fixed[0].energy, abs=1e-6)


class Push(ForceField):
    """The same force on every atom, fixed in space: its average shows the rotations alone."""

    key, label, declaration = "push", "push", Declaration(True, "approximate", False, None, "float64")

    def evaluate(self, structures):
        return [Evaluation(0.0, np.full((len(one), 3), [1.0, 0.3, 0.2]), np.zeros((3, 3))) for one in structures]


def test_structures_one_after_the_other_have_their_own_axes(rattled):
    """Python gives the address of an object that has ended to a later one."""
    force_field = wrapped(Push(), "random:2:1")
    for turn in random_rotations(40, np.random.default_rng(5)).matrices:
        structure = turned(rattled, turn)
        turns = force_field._reference_of(structure).turns
        batch = force_field.evaluate_batch(BatchState.of([structure]))
        expected = np.tile(np.mean(turns.transpose(0, 2, 1) @ [1.0, 0.3, 0.2], axis=0), (4, 1))
        np.testing.assert_allclose(batch.forces, expected, atol=1e-12)
        (listed,) = force_field.evaluate([structure])
        np.testing.assert_allclose(listed.forces, expected, atol=1e-12)


@pytest.mark.parametrize("text", ["project", "icosahedral+inversion", "lebedev:6x4", "random:3:2+lab"])
def test_esen_is_unchanged_within_rounding(text):
    esen = NetworkForceField(small_checkpoint())
    structures = [bulk("Si", cubic=True), bulk("SiC", "zincblende", 4.4)]
    structures[0].rattle(0.05, seed=1)
    bare_esen = with_parity(esen, "average") if "inversion" in text else esen  # SO(3), not O(3)
    for bare, one in zip(bare_esen.evaluate(structures), wrapped(esen, text).evaluate(structures), strict=True):
        assert one.energy == pytest.approx(bare.energy, abs=2e-11)  # |E| is about 30 eV
        np.testing.assert_allclose(one.forces, bare.forces, atol=1e-12)
        np.testing.assert_allclose(one.stress, bare.stress, atol=1e-12)


def test_the_average_passes_the_contract(transformer, rattled):
    declared = wrapped(transformer, "random:2:1+inversion+lab")
    assert check_force_field(declared, [rattled])["inversion"] < 1e-12
    assert declared.declaration.equivariance == "approximate"


def test_second_derivatives_are_averaged(transformer, rattled):
    force_field = wrapped(transformer, "random:3:4")
    direction = np.random.default_rng(0).normal(size=(1, len(rattled), 3))
    step, ends = 1e-4, []
    for sign in (1, -1):
        moved = rattled.copy()
        moved.positions += sign * step * direction[0]
        ends.append(force_field.evaluate([moved])[0].forces)
    products = force_field.hessian_vector_products(rattled, direction)
    np.testing.assert_allclose(products[0], (ends[1] - ends[0]) / (2 * step), atol=1e-6)


def test_relaxations_keep_the_space_group_where_the_force_field_loses_it(metal):
    start = turned(bulk("Cu", a=3.6), TILT)
    group = {}
    for symmetry, text in (("free", None), ("free", "project"), ("lock", None), ("fix", "project")):
        fields = {"fmax_ev_per_angstrom": 1e-4, "max_steps": 2 if symmetry == "fix" else 12, "keep_unconverged": True}
        protocol = RelaxProtocol(symmetry=symmetry, force_symmetry=text, **fields)
        before = metal.force_evaluations
        output = relax(start, metal, protocol)
        assert metal.force_evaluations - before == output.n_steps + 1
        group[symmetry, text] = space_group_number(output.structure.to_atoms(), 1e-5)
    assert group.pop(("free", None)) < 225
    assert set(group.values()) == {225}


def test_documents_hold_the_spread(metal):
    atoms = bulk("Cu", a=3.6, cubic=True)
    output = static(atoms, metal, StaticProtocol(force_symmetry="icosahedral"))
    assert output.orientation_spread[0] > 1e-6
    assert static(atoms, metal, StaticProtocol()).orientation_spread is None
    output = relax(atoms, metal, RelaxProtocol(symmetry="lock", force_symmetry="icosahedral"))
    assert output.orientation_spread[0] > 1e-6
    output = molecular_dynamics(atoms, metal, MDProtocol(n_steps=10, force_symmetry="random:2:1"))
    assert output.orientation_spread[1] > 1e-6
    protocol = DisplacementProtocol(fc2_supercell=(1, 1, 1), force_symmetry="octahedral+project")
    forces = displaced_forces(atoms, metal, protocol)
    assert forces.orientation_spread[1] > 1e-6
    assert 1 < forces.n_evaluations < 24  # the displaced atom leaves the operations about its direction


def test_audits_measure_a_force_field_as_it_is_and_with_its_average(copper, rattled):
    """The measures of audits, along the axes of the perfect crystal as in `measure`."""
    errors = []
    for force_field in (copper, along(wrapped(copper, "icosahedral"), bulk("Cu", a=3.8, cubic=True))):
        (result,) = force_field.evaluate([rattled])
        errors.append(rotation_force_error(force_field, rattled, result, np.random.default_rng(0), 2))
    assert errors[0] > 1e-4
    assert errors[1] < 1e-12
    assert MeasurementsProtocol(force_symmetry="icosahedral").hash() != MeasurementsProtocol().hash()


def test_contradictions_are_refused():
    for fields, words in (
        ({"force_constants": "autodiff", "force_symmetry": "project"}, "exact Hessians are not projected"),
        ({"force_symmetry": "project:0.01"}, "would not see displacements of 0.01"),
        ({"force_symmetry": "octo"}, "is not understood"),
    ):
        with pytest.raises(ValueError, match=words):
            DisplacementProtocol(**fields)
    with pytest.raises(ValueError, match="moving atoms leave the space group"):
        MDProtocol(force_symmetry="project")


def test_keys_of_existing_results_are_unchanged(copper):
    """Literal keys from before the field existed; those of the protocols at their defaults are in golden_keys.json."""
    copper.key = "k" * 64
    plain = symmetrized(copper, "average", None)
    assert isinstance(plain, Symmetrized)
    assert plain.key == "af133e937cb99136fa7b9de98858074d282287734642250723d6a66c7ef53f33"
    last = [
        property_requests("a" * 64, "b" * 64, one, NumericSettings())[-1].key
        for one in (PhononProtocol(), ConductivityProtocol(), MDProtocol())
    ]
    assert last == [
        "9fa0b799cb636819986e1fa2341ea2290d7285d270ee2d4d5c08fa93db16eafd",
        "821c3af4302ce9343def41f8fea4ee69d224ed20386f486fb66b3109a8c8112b",
        "68f3de8e41588b0585ced7f1b9b72307830d59f95deab3826a6cf05bfaafc7ad",
    ]
    assert MeasurementsProtocol().hash() == "36906c0207de9d5ca0e03fbbfa250c78881d323d4e1e4f650e5a3d1b8f58969e"
    assert wrapped(copper, "octahedral").key not in (plain.key, copper.key)
    assert (
        RelaxProtocol(force_symmetry="project").hash()
        == RelaxProtocol(force_symmetry=ForceSymmetry(project=True)).hash()
    )
