"""A second network family of 60 lines: one entry in the table of families makes it a force field for everything."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.io import write
from pair_network import PairConfig, PairNetwork
from stages import STAGE, argon_data

from esen_flows.campaigns.plan import plan
from esen_flows.campaigns.reproduce import compute_here
from esen_flows.data.batch import Graph, GraphBatch
from esen_flows.data.batch_state import BatchState
from esen_flows.errors import InputError, ModelError
from esen_flows.forcefield import families
from esen_flows.forcefield.checkpoint import load
from esen_flows.forcefield.load import load_force_field
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.network.derivatives import energy_forces_stress
from esen_flows.network.esen.config import ESENConfig
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.physics.lattice.phonon import phonon
from esen_flows.physics.relax import relax
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.schemas.card import resolve_model
from esen_flows.schemas.checkpoint_header import read_header
from esen_flows.schemas.protocols import DisplacementProtocol, HarmonicProtocol, RelaxProtocol
from esen_flows.store.campaigns import members
from esen_flows.store.results import Store
from esen_flows.testing import check_force_field
from esen_flows.training.augmentation import random_orthogonal
from esen_flows.training.config import TrainingConfig, config_from_dict
from esen_flows.training.finetune import finetune_config
from esen_flows.training.frames import collate, make_frame
from esen_flows.training.metrics import read_rows
from esen_flows.training.train import train

OF_ESEN = {"num_layers", "lmax", "mmax", "sphere_channels", "hidden_channels", "edge_channels", "num_distance_basis"}
SIZES = {"width": 16, "cutoff_angstrom": 5.0}
ARGON = bulk("Ar", "fcc", a=5.3)


def stage(**changes: object) -> TrainingConfig:
    shared = {name: value for name, value in STAGE.items() if name not in OF_ESEN}
    return config_from_dict({"family": "pair", **shared, **SIZES, "dtype": "float64", **changes})


@pytest.fixture(scope="module", autouse=True)
def pair() -> Iterator[None]:
    """The entry of the toy family in the table of families."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(families.FAMILIES, "pair", PairNetwork)
        yield


@pytest.fixture(scope="module")
def trained(pair: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(stage(epochs=40), *argon_data(), tmp_path_factory.mktemp("pair"))


def test_it_trains_and_its_checkpoint_names_it(trained: Path) -> None:
    errors = [row["force_rmse_mev_per_angstrom"] for row in read_rows(trained.parent / "history.csv")]
    assert errors[-1] < 0.3 * errors[0]
    header = read_header(trained)
    assert (header["family"], header["architecture"]) == ("pair", {**SIZES, "max_num_elements": 100})
    assert header["training"]["config"]["family"] == "pair"
    assert load(trained).network.config == PairConfig(**SIZES)
    reference = resolve_model(trained)
    assert (reference.equivariance, reference.conservative, reference.differentiable) == ("O3", True, True)


def test_it_keeps_what_it_declares(trained: Path) -> None:
    force_field = load_force_field(trained)
    assert isinstance(force_field, NetworkForceField)
    crystal = bulk("Ar", "fcc", a=5.2, cubic=True)
    crystal.rattle(0.1, seed=1)
    deviations = check_force_field(force_field, [crystal, ARGON])
    assert "Hessian is the derivative of the forces" in deviations


def test_it_is_relaxed_with_and_has_phonons(trained: Path) -> None:
    force_field = load_force_field(trained)
    relaxed = relax(ARGON, force_field, RelaxProtocol(fmax_ev_per_angstrom=1e-4))
    assert relaxed.fmax_ev_per_angstrom < 1e-4
    twice = ((2, 0, 0), (0, 2, 0), (0, 0, 2))
    atoms = bulk("Ar", "fcc", a=float(2 ** (1 / 2) * np.linalg.norm(relaxed.structure.to_atoms().cell[0])))
    finite = DisplacementProtocol(fc2_supercell=twice)
    protocols = (finite, finite.model_copy(update={"force_constants": "autodiff"}))
    found = [phonon(displaced_forces(atoms, force_field, one), HarmonicProtocol(mesh=(3, 3, 3))) for one in protocols]
    highest = [float(np.max(one.band_frequencies_thz)) for one in found]
    assert 0.5 < highest[0] < 5.0  # argon: 2 THz
    assert highest[1] == pytest.approx(highest[0], rel=1e-2)


@pytest.mark.mongod
def test_it_is_the_model_of_a_campaign(trained: Path, named_store: Store, tmp_path: Path) -> None:
    write(tmp_path / "argon.xyz", [ARGON, bulk("Ar", "fcc", a=5.2, cubic=True)], format="extxyz")
    content = {
        "name": "c",
        "property": "relax",
        "models": str(trained),
        "structures": {"file": str(tmp_path / "argon.xyz")},
    }
    assert plan(named_store, CampaignSpec.model_validate(content), "text").new == 2
    compute_here(named_store, "c")
    assert [row["state"] for row in members(named_store, "c")] == ["finished", "finished"]


def test_it_is_fine_tuned_with_its_own_species_tables_frozen(trained: Path) -> None:
    config = finetune_config(load(trained), argon_data()[0], {"epochs": 1})
    assert config.freeze == ("species",)
    assert isinstance(config.network, PairConfig)


def test_a_stage_goes_on_from_another_one(trained: Path, tmp_path: Path) -> None:
    start = load(trained)
    path = train(stage(epochs=1, learning_rate=1e-9, ema_decay=0.0), *argon_data(), tmp_path, initial=start)
    atoms = [ARGON]
    (before,), (after,) = (load_force_field(each).evaluate(atoms) for each in (trained, path))
    assert after.energy == pytest.approx(before.energy, abs=1e-6)


def test_other_families_and_unknown_ones_are_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no network family 'pear'; this release has edge_transformer, esen, pair"):
        config_from_dict({"family": "pear", "epochs": 1})
    with pytest.raises(InputError, match=r"missing \[.*'cutoff_angstrom'.*'width'\]: sizes"):
        config_from_dict({"family": "pair", "epochs": 1})
    with pytest.raises(InputError, match="family 'pair', the stage says 'esen'"):
        train(config_from_dict(STAGE), *argon_data(), tmp_path, initial=load(trained))
    with pytest.raises(InputError, match="PairNetwork networks cannot be compiled"):
        load_force_field(trained, compile=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(families.FAMILIES, "pair")
        with pytest.raises(ModelError, match="no network family 'pair'; this release has edge_transformer, esen"):
            load_force_field(trained)


def test_the_default_family_is_not_written_out() -> None:
    assert "family" not in config_from_dict(STAGE).to_dict()
    assert families.family_of(ESENConfig()) == "esen"


def test_random_rotations_turn_structures_with_their_labels(trained: Path) -> None:
    """A network that is equivariant has the same errors before and after."""
    network = load(trained).network.double()
    item = argon_data()[0][3]
    frame = make_frame(item, network.config, {18: 0.0})
    turned = frame.turned(random_orthogonal(0, 1, 2, 3))
    one, other = (collate([each], torch.float64) for each in (frame, turned))
    assert not np.allclose(turned.forces, frame.forces, atol=1e-3)
    errors = []
    for part in (one, other):
        found = energy_forces_stress(network, part.graph)
        errors.append([(found.forces - part.forces).square().sum(), (found.stress - part.stress).square().sum()])
    np.testing.assert_allclose(errors[0], errors[1], rtol=1e-10)
    drawn = [random_orthogonal(0, 0, 0, place) for place in range(40)]
    assert all(np.allclose(matrix @ matrix.T, np.eye(3)) for matrix in drawn)
    assert {round(np.linalg.det(matrix)) for matrix in drawn} == {-1, 1}


def test_the_trainer_rotates_for_a_family_that_asks_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []

    def noted(*place: int) -> np.ndarray:
        seen.append(place)
        return random_orthogonal(*place)

    monkeypatch.setattr("esen_flows.training.steps.random_orthogonal", noted)
    train(stage(epochs=1), *argon_data(), tmp_path / "built in")
    assert not seen
    monkeypatch.setattr(PairConfig, "augmentation", "O3")
    train(stage(epochs=1), *argon_data(), tmp_path / "learned")
    assert len(set(seen)) == 20


def test_graphs_keep_the_reverse_edge_for_a_family_that_reads_it(
    monkeypatch: pytest.MonkeyPatch, trained: Path
) -> None:
    """Of lists, and of batches whose second step is not a new search."""
    monkeypatch.setattr(PairConfig, "reads_reverse_edges", True)
    force_field = load_force_field(trained)
    batches: list[GraphBatch] = []
    forward = PairNetwork.forward

    def watched(self: PairNetwork, graph: GraphBatch, **inputs: torch.Tensor) -> object:
        batches.append(graph)
        return forward(self, graph, **inputs)

    monkeypatch.setattr(PairNetwork, "forward", watched)
    crystal = bulk("Ar", "fcc", a=5.2, cubic=True) * 2
    for _ in range(2):
        crystal.rattle(0.05, seed=1)
        force_field.evaluate([crystal, ARGON])
    state = BatchState.of([crystal, ARGON])
    for _ in range(2):
        force_field.evaluate_batch(state)
        tables = state.tables
        state = state.moved(state.positions + 0.01 * torch.rand_like(state.positions))
    assert state.tables is tables
    assert len(batches) == 4
    for batch in batches:
        assert torch.equal(batch.source[batch.reverse], batch.target)
        assert torch.equal(batch.reverse[batch.reverse], torch.arange(batch.n_edges))
        torch.testing.assert_close(batch.vectors[batch.reverse], -batch.vectors, rtol=0, atol=1e-12)
    assert Graph.from_atoms(ARGON, 5.0).reverse is None
