"""The network against numbers of the published reference (../shared/fixtures/esen), and its own symmetries."""

import json

import numpy as np
import pytest
import torch
from ase import Atoms

from esen_flows.data.batch import Graph, GraphBatch
from esen_flows.network.derivatives import energy_forces_stress
from esen_flows.network.esen import ESEN, ESENConfig
from esen_flows.testing import load_fixture

CONFIGURATIONS = ["cons_l2m2", "cons_l3m2"]
SETS = ["ethanol", "si_prim", "nacl_displaced", "triclinic"]


def fixture_atoms(data, name):
    numbers, cells = data[f"{name}/Z"], data[f"{name}/cell"]
    starts = np.cumsum(data[f"{name}/natoms"]) - data[f"{name}/natoms"]
    return [
        Atoms(numbers[s : s + n], positions=data[f"{name}/pos"][s : s + n], cell=cell, pbc=True)
        for s, n, cell in zip(starts, data[f"{name}/natoms"], cells, strict=True)
    ]


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def fixture(request, shared_dir):
    folder = shared_dir / "fixtures" / "esen"
    return folder, request.param, np.load(folder / f"{request.param}.npz")


def close(value, reference, tolerance):
    assert np.abs(value - reference).max() <= tolerance * max(1.0, np.abs(reference).max())


@pytest.mark.shared
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 3e-5)])
def test_energy_forces_stress_equal_the_reference(fixture, dtype, tolerance):
    folder, name, data = fixture
    force_field = load_fixture(folder, name, dtype=dtype)
    for system in SETS:
        (result,) = force_field.evaluate(fixture_atoms(data, system))
        close(result.energy, data[f"{system}/f64/energy"], tolerance)
        close(result.forces, data[f"{system}/f64/forces_via_rotation"], tolerance)
        close(result.stress.ravel(), data[f"{system}/f64/stress_via_rotation"].ravel(), tolerance)


@pytest.mark.shared
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 3e-5)])
def test_embeddings_and_a_mixed_batch_equal_the_reference(fixture, dtype, tolerance):
    folder, name, data = fixture
    force_field = load_fixture(folder, name, dtype=dtype)
    cutoff = force_field.network.config.cutoff_angstrom
    for system in [*SETS, "batch4"]:
        graphs = [Graph.from_atoms(atoms, cutoff) for atoms in fixture_atoms(data, system)]
        batch = GraphBatch.collate(graphs, dtype=force_field.torch_dtype)
        assert batch.n_edges == data[f"{system}/edge_index"].shape[1]
        output = force_field.network(batch)
        close(output.node_embedding.numpy(), data[f"{system}/f64/final_node_embedding"], tolerance)
        close(output.energy.numpy(), data[f"{system}/f64/energy"], tolerance)


@pytest.mark.shared
def test_a_rolled_frame_changes_nothing(fixture):
    folder, name, data = fixture
    force_field = load_fixture(folder, name)
    (atoms,) = fixture_atoms(data, "triclinic")
    batch = GraphBatch.collate([Graph.from_atoms(atoms, force_field.network.config.cutoff_angstrom)])
    unit = batch.vectors / torch.linalg.vector_norm(batch.vectors, dim=1, keepdim=True)
    frames = _rolled_frames(unit, seed=3)
    with torch.no_grad():
        rolled, plain = force_field.network(batch, edge_frames=frames), force_field.network(batch)
    assert torch.allclose(rolled.energy, plain.energy, atol=1e-12, rtol=0)


def _rolled_frames(unit, seed):
    """Frames with R n = +y and a random roll, made by cross products."""
    generator = torch.Generator().manual_seed(seed)
    other = torch.randn(unit.shape, generator=generator, dtype=unit.dtype)
    x = torch.linalg.cross(unit, other)
    x = x / torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return torch.stack((x, unit, torch.linalg.cross(x, unit)), dim=1)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["abl_bessel", "abl_no_envelope", "dens_l2m2"])
def test_a_configuration_that_is_not_implemented_is_refused(shared_dir, name):
    with pytest.raises(ValueError, match="implements"):
        load_fixture(shared_dir / "fixtures" / "esen", name)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("table", "config", "parameters"),
    [
        ("esen_30m_mp_conservative", {"num_layers": 10, "lmax": 3}, 30_085_121),
        ("esen_30m_oam_conservative", {"num_layers": 10, "lmax": 3, "num_distance_basis": 64}, 30_161_153),
        ("esen_2layer_l2m2_conservative", {}, 3_199_745),
    ],
)
def test_names_shapes_and_counts_of_the_published_models(shared_dir, table, config, parameters):
    with torch.device("meta"):
        network = ESEN(ESENConfig(**config))
    assert sum(p.numel() for p in network.parameters()) == parameters
    ours = {name: "x".join(map(str, p.shape)) for name, p in network.named_parameters()}
    rows = (shared_dir / "fixtures/esen/state_dict_keys" / f"{table}.tsv").read_text().splitlines()[1:]
    published = {}
    for key, shape, _, kind in (row.split("\t") for row in rows):
        if kind == "param":
            short = key.removeprefix("backbone.") if key.startswith("backbone.") else key.split(".", 2)[2]
            published[short] = shape
    assert ours == published


@pytest.fixture(scope="module")
def small_network():
    torch.manual_seed(0)
    config = ESENConfig(sphere_channels=8, hidden_channels=12, edge_channels=6, lmax=3, mmax=2, cutoff_angstrom=4.0)
    network = ESEN(config).double()
    for parameter in network.parameters():  # default weights leave the radial networks nearly constant
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return network


def crystal(name):
    """Displaced crystals in standard orientation: bonds of undisplaced atoms lie along the axes, y among them."""
    from ase.build import bulk

    cells = {
        "rocksalt": bulk("NaCl", "rocksalt", a=5.6, cubic=True),
        "wurtzite": bulk("GaN", "wurtzite", a=3.2, c=5.2),
        "diamond": bulk("Si", "diamond", a=5.46, cubic=True),
    }
    atoms = cells[name]
    atoms.positions[0] += [0.03, 0.0, 0.02]
    return atoms


def rotation_matrix(seed=1):
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def derivatives(network, atoms):
    batch = GraphBatch.collate([Graph.from_atoms(atoms, network.config.cutoff_angstrom)])
    result = energy_forces_stress(network, batch)
    return float(result.energy), result.forces.numpy(), result.stress[0].numpy()


@pytest.mark.parametrize("name", ["rocksalt", "wurtzite", "diamond"])
def test_forces_in_standard_orientation_equal_those_of_the_rotated_cell(small_network, name):
    atoms, rotation = crystal(name), rotation_matrix()
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ rotation.T, scale_atoms=True)
    _, forces, stress = derivatives(small_network, atoms)
    _, turned_forces, turned_stress = derivatives(small_network, turned)
    close(turned_forces @ rotation, forces, 1e-12)
    close(rotation.T @ turned_stress @ rotation, stress, 1e-12)


@pytest.mark.parametrize("name", ["rocksalt", "wurtzite", "diamond"])
def test_forces_equal_five_point_central_differences(small_network, name):
    atoms, step = crystal(name), 2e-3
    _, forces, _ = derivatives(small_network, atoms)
    for index in range(3):
        energies = []
        for k in (-2, -1, 1, 2):
            moved = atoms.copy()
            moved.positions[1, index] += k * step
            energies.append(derivatives(small_network, moved)[0])
        slope = (energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * step)
        assert abs(forces[1, index] + slope) < 1e-8


def test_the_strain_argument_gives_the_stress(small_network):
    atoms = crystal("wurtzite")
    batch = GraphBatch.collate([Graph.from_atoms(atoms, small_network.config.cutoff_angstrom)])
    strain = torch.zeros(1, 3, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(small_network(batch, displacement=strain).energy.sum(), strain)
    close(gradient[0].numpy() / atoms.get_volume(), derivatives(small_network, atoms)[2], 1e-12)


def test_an_isolated_atom_does_not_feel_its_batch_mates(small_network):
    cutoff = small_network.config.cutoff_angstrom
    lone, dimer = Atoms("O"), Atoms("O2", positions=[[0, 0, 0], [0, 0, 1.2]])
    alone = small_network(GraphBatch.collate([Graph.from_atoms(lone, cutoff)])).energy[0]
    mixed = small_network(GraphBatch.collate([Graph.from_atoms(a, cutoff) for a in (dimer, lone)])).energy[1]
    assert float(alone.detach()) == pytest.approx(float(mixed.detach()), abs=1e-13)


def test_a_dimer_is_continuous_at_the_cutoff(small_network):
    cutoff = small_network.config.cutoff_angstrom
    inside, outside = (
        derivatives(small_network, Atoms("O2", positions=[[0, 0, 0], [0, cutoff + shift, 0]]))
        for shift in (-1e-6, 1e-6)
    )
    assert inside[0] == pytest.approx(outside[0], abs=1e-13)
    assert np.abs(inside[1]).max() < 1e-8


def test_float32_after_float64_keeps_the_constants_exact(small_network):
    atoms = crystal("diamond")
    before = derivatives(small_network, atoms)[0]
    small_network.float()
    small_network.double()
    # Only the parameters were rounded, by at most 2^-24 relative; harmonic constants must not be.
    assert derivatives(small_network, atoms)[0] == pytest.approx(before, rel=1e-5)


@pytest.mark.parametrize(
    "bad", [{"lmax": 1, "mmax": 2}, {"num_distance_basis": 1}, {"cutoff_angstrom": -1.0}, {"num_layers": 0}]
)
def test_impossible_sizes_are_refused(bad):
    with pytest.raises(ValueError, match=str(next(iter(bad.values())))):
        ESENConfig(**bad)


def test_fixture_folder_without_that_name(tmp_path):
    (tmp_path / "configs.json").write_text(json.dumps({"a": {}}))
    with pytest.raises(ValueError, match="there are a"):
        load_fixture(tmp_path, "b")
