"""The network against numbers of the published reference (../shared/fixtures/esen), and its own symmetries."""

import json

import numpy as np
import pytest
import torch
from ase import Atoms

from esen_flows.data.batch import Graph, GraphBatch
from esen_flows.network.derivatives import energy_forces_stress
from esen_flows.network.esen.config import ESENConfig
from esen_flows.network.esen.esen import ESEN
from esen_flows.network.symmetric_tensors import stress_components
from esen_flows.testing import load_fixture

CONSERVATIVE = ["cons_l2m2", "cons_l3m2", "abl_layer_norm_sh", "abl_bessel", "abl_no_envelope"]
GRID = ["abl_grid_s2_res10", "abl_grid_only_res14", "l3m2_s2_grid_default_res"]
DIRECT = ["direct_l2m2", "dens_l2m2"]
PRECISIONS = [
    *((name, "float64", 1e-10) for name in CONSERVATIVE),
    *((name, "float32", 3e-5) for name in CONSERVATIVE[:2]),
]


def fixture_atoms(data, name):
    numbers, cells = data[f"{name}/Z"], data[f"{name}/cell"]
    starts = np.cumsum(data[f"{name}/natoms"]) - data[f"{name}/natoms"]
    return [
        Atoms(numbers[s : s + n], positions=data[f"{name}/pos"][s : s + n], cell=cell, pbc=True)
        for s, n, cell in zip(starts, data[f"{name}/natoms"], cells, strict=True)
    ]


def read_fixture(shared_dir, name):
    folder = shared_dir / "fixtures" / "esen"
    data = np.load(folder / f"{name}.npz")
    return folder, data, sorted({key.split("/")[0] for key in data})


def close(value, reference, tolerance):
    assert value.shape == reference.shape or value.size == reference.size
    assert np.abs(np.ravel(value) - np.ravel(reference)).max() <= tolerance * max(1.0, np.abs(reference).max())


def reference_batch(data, system, dtype=torch.float64):
    """The edges of the reference in its order, so that its stored frames fit."""
    source, target = torch.from_numpy(data[f"{system}/edge_index"].astype(np.int64))
    counts = data[f"{system}/natoms"]
    of_atom = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    positions, cells = (torch.from_numpy(data[f"{system}/{name}"]) for name in ("pos", "cell"))
    shifts = torch.from_numpy(data[f"{system}/cell_offsets"].astype(np.float64))
    images = torch.einsum("ei,eij->ej", shifts, cells[of_atom[target]])
    return GraphBatch(
        numbers=torch.from_numpy(data[f"{system}/Z"].astype(np.int64)),
        source=source,
        target=target,
        vectors=(positions[source] - positions[target] + images).to(dtype),
        system=of_atom,
        edge_system=of_atom[target],
        volume=torch.linalg.det(cells).abs().to(dtype),
        charge=torch.zeros(len(counts), dtype=torch.int64),
        spin=torch.zeros(len(counts), dtype=torch.int64),
        n_systems=len(counts),
    )


@pytest.mark.shared
@pytest.mark.parametrize(("name", "dtype", "tolerance"), PRECISIONS)
def test_energy_forces_stress_equal_the_reference(shared_dir, name, dtype, tolerance):
    folder, data, systems = read_fixture(shared_dir, name)
    force_field = load_fixture(folder, name, dtype=dtype)
    for system in set(systems) - {"batch4"}:
        (result,) = force_field.evaluate(fixture_atoms(data, system))
        close(np.array(result.energy), data[f"{system}/f64/energy"], tolerance)
        close(result.forces, data[f"{system}/f64/forces_via_rotation"], tolerance)
        close(result.stress, data[f"{system}/f64/stress_via_rotation"], tolerance)


@pytest.mark.shared
@pytest.mark.parametrize(("name", "dtype", "tolerance"), PRECISIONS)
def test_embeddings_and_a_mixed_batch_equal_the_reference(shared_dir, name, dtype, tolerance):
    folder, data, systems = read_fixture(shared_dir, name)
    force_field = load_fixture(folder, name, dtype=dtype)
    cutoff = force_field.network.config.cutoff_angstrom
    for system in systems:
        graphs = [Graph.from_atoms(atoms, cutoff) for atoms in fixture_atoms(data, system)]
        batch = GraphBatch.collate(graphs, dtype=force_field.torch_dtype)
        assert batch.n_edges == data[f"{system}/edge_index"].shape[1]
        output = force_field.network(batch)
        close(output.node_embedding.numpy(), data[f"{system}/f64/final_node_embedding"], tolerance)
        close(output.energy.numpy(), data[f"{system}/f64/energy"], tolerance)


@pytest.mark.shared
@pytest.mark.parametrize("name", GRID)
def test_grids_equal_the_reference_in_its_own_frames(shared_dir, name):
    """With s2 the roll of a frame matters, and forces follow how it turns with the edge, which is not stored."""
    folder, data, systems = read_fixture(shared_dir, name)
    network = load_fixture(folder, name).network
    assert network.config.uses_grid
    for system in systems:
        frames = torch.from_numpy(data[f"{system}/edge_rot_mat"].astype(np.float64))
        output = network(reference_batch(data, system), edge_frames=frames)
        close(output.energy.numpy(), data[f"{system}/f64/energy"], 1e-10)
        close(output.node_embedding.numpy(), data[f"{system}/f64/final_node_embedding"], 1e-10)
        if network.config.act_type == "gate":  # the node block does not see edge frames
            result = energy_forces_stress(network, reference_batch(data, system))
            close(result.forces.numpy(), data[f"{system}/f64/forces"], 1e-10)
            close(result.stress.numpy(), data[f"{system}/f64/stress"], 1e-10)


@pytest.mark.shared
@pytest.mark.parametrize("name", DIRECT)
def test_direct_heads_equal_the_reference(shared_dir, name):
    folder, data, systems = read_fixture(shared_dir, name)
    network = load_fixture(folder, name).network
    clean = "clean_" if network.config.denoising else ""
    for system in systems:
        batch = reference_batch(data, system)
        output = network(batch)
        close(output.energy.numpy(), data[f"{system}/f64/{clean}energy"], 1e-10)
        close(output.forces.numpy(), data[f"{system}/f64/{clean}forces"], 1e-10)
        if not network.config.denoising:
            isotropic, anisotropic = stress_components(output.stress)
            close(isotropic.numpy(), data[f"{system}/f64/stress_isotropic"], 1e-10)
            close(anisotropic.numpy(), data[f"{system}/f64/stress_anisotropic"], 1e-10)
            # The reference allocates its tensor in float32.
            close(energy_forces_stress(network, batch).stress.numpy(), data[f"{system}/f64/stress"], 1e-6)
            continue
        noised = torch.from_numpy(data[f"{system}/dens_noise_mask"].astype(bool)).unsqueeze(1)
        known = torch.from_numpy(data[f"{system}/dens_forces_in"].astype(np.float64))
        output = network(batch, noised_forces=torch.where(noised, known, 0.0))
        close(output.energy.numpy(), data[f"{system}/f64/energy"], 1e-10)
        close(output.node_embedding.numpy(), data[f"{system}/f64/final_node_embedding"], 1e-10)
        close(torch.where(noised, output.noise, output.forces).numpy(), data[f"{system}/f64/forces"], 1e-10)


@pytest.mark.shared
@pytest.mark.parametrize("name", CONSERVATIVE)
def test_a_rolled_frame_changes_nothing(shared_dir, name):
    folder, data, _ = read_fixture(shared_dir, name)
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


def test_an_isolated_atom_does_not_depend_on_the_rest_of_its_batch(small_network):
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


def test_derivatives_of_a_dimer_are_continuous_at_the_cutoff_up_to_the_second(small_network):
    """The envelope 1 - 21 u^5 + 35 u^6 - 15 u^7 has a triple root at u = 1: its third derivative jumps to zero."""
    cutoff = small_network.config.cutoff_angstrom

    def derivatives_at(distance):
        length = torch.tensor([distance], dtype=torch.float64, requires_grad=True)
        batch = GraphBatch.collate([Graph.from_atoms(Atoms("O2", positions=[[0, 0, 0], [0, 1, 0]]), cutoff)])
        direction = batch.vectors / torch.linalg.vector_norm(batch.vectors, dim=1, keepdim=True)
        value = small_network(batch, vectors=direction * length).energy.sum()
        values = [value]
        for _ in range(3):
            (value,) = torch.autograd.grad(value.sum(), length, create_graph=True)
            values.append(value)
        return [float(v.detach()) for v in values]

    inside, outside = derivatives_at(cutoff - 1e-7), derivatives_at(cutoff + 1e-7)
    lone = 2 * derivatives(small_network, Atoms("O"))[0]
    assert inside[0] == pytest.approx(lone, abs=1e-13)
    assert outside[0] == pytest.approx(lone, abs=1e-13)
    assert outside[1:] == [0.0, 0.0, 0.0]
    assert np.abs(inside[1:3]).max() < 1e-5  # second: 1e-7 times the third
    assert abs(inside[3]) > 1e-3  # the third does jump


@pytest.mark.parametrize("size", [1, 37, 100_000])
def test_chunks_of_edges_change_nothing(small_network, size):
    atoms = crystal("wurtzite")
    batch = GraphBatch.collate([Graph.from_atoms(a, small_network.config.cutoff_angstrom) for a in (atoms, atoms[:3])])

    def everything():
        result = energy_forces_stress(small_network, batch, create_graph=True)
        loss = result.forces.square().sum() + result.stress.square().sum()
        parameters = [p for p in small_network.parameters() if p.requires_grad]
        gradient = torch.autograd.grad(loss, parameters, allow_unused=True)
        return [result.energy, result.forces, result.stress, *(g for g in gradient if g is not None)]

    whole = everything()
    small_network.edges_per_chunk = size
    try:
        chunked = everything()
    finally:
        small_network.edges_per_chunk = None
    for one, other in zip(chunked, whole, strict=True):
        close(one.detach().numpy(), other.detach().numpy(), 1e-12)


def test_float32_after_float64_keeps_the_constants_exact():
    """Weights start as float32 numbers and survive the cast; float64 constants would not, if they were cast too."""
    torch.manual_seed(0)
    network = ESEN(ESENConfig(sphere_channels=8, hidden_channels=12, edge_channels=6, lmax=3, cutoff_angstrom=4.0))
    atoms = crystal("diamond")
    before = derivatives(network.double(), atoms)
    after = derivatives(network.float().double(), atoms)
    assert after[0] == before[0]
    assert np.array_equal(after[1], before[1])


@pytest.mark.parametrize(
    "bad",
    [
        {"lmax": 1, "mmax": 2},
        {"num_distance_basis": 1},
        {"cutoff_angstrom": -1.0},
        {"cutoff_angstrom": float("nan")},
        {"use_envelope": "false"},
        {"num_layers": True},
        {"num_layers": 2.0},
        {"num_layers": 0},
        {"grid_resolution": 7},
        {"grid_resolution": 4},
        {"max_neighbors": 0},
        {"norm_type": "batch_norm"},
        {"so2_weights": "quaternion"},
        {"denoising": True},
    ],
)
def test_impossible_options_are_refused(bad):
    name, value = next(iter(bad.items()))
    with pytest.raises(ValueError, match=rf"{name}|basis.*{value}"):
        ESENConfig(**bad)


def test_fixture_folder_without_that_name(tmp_path):
    (tmp_path / "configs.json").write_text(json.dumps({"a": {}}))
    with pytest.raises(ValueError, match="there are a"):
        load_fixture(tmp_path, "b")
