"""A stage of the edge transformer: its gradient, the trainer, stages of other heads, the checkpoint and ASE."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk
from stages import STAGE, argon, argon_data

from esen_flows.errors import InputError, ModelError
from esen_flows.forcefield.ase_calculator import ForceFieldCalculator
from esen_flows.forcefield.checkpoint import Checkpoint, load
from esen_flows.forcefield.families import make_network
from esen_flows.forcefield.load import load_force_field
from esen_flows.network.derivatives import energy_forces_stress
from esen_flows.schemas.card import resolve_model
from esen_flows.testing import check_force_field
from esen_flows.training.config import TrainingConfig, config_from_dict
from esen_flows.training.finetune import finetune_config
from esen_flows.training.frames import collate, make_frame
from esen_flows.training.loss import training_loss
from esen_flows.training.metrics import read_rows
from esen_flows.training.train import train

OF_ESEN = {"num_layers", "lmax", "mmax", "sphere_channels", "hidden_channels", "edge_channels", "num_distance_basis"}
SIZES = {"width": 16, "num_gnn_layers": 2, "num_attention_layers": 1, "num_heads": 4, "cutoff_angstrom": 4.5}
BOTH = {
    "direct_forces": True, "direct_stress": True, "both_heads": True, "direct_force_weight": 5.0,
    "direct_stress_weight": 2.0,
}  # fmt: skip
NO_STRESS_HEAD = {**BOTH, "direct_stress": False, "direct_stress_weight": 0.0}
HEADS: dict[str, dict[str, Any]] = {
    "conservative": {}, "direct": {"direct_forces": True, "direct_stress": True}, "both": BOTH,
    "both, relative loss": {**BOTH, "loss": "relative"}, "no stress head": NO_STRESS_HEAD,
    "no stress head, relative loss": {**NO_STRESS_HEAD, "loss": "relative"},
}  # fmt: skip
ABSOLUTE = {"loss": "absolute", "energy_weight": 20.0, "force_weight": 20.0, "stress_weight": 5.0}


def stage(**changes: Any) -> TrainingConfig:
    shared = {name: value for name, value in STAGE.items() if name not in OF_ESEN}
    options = {"max_num_elements": 20, "adaptive_neighbors": 9.0, "learning_rate": 0.005, "initial_head_factor": 0.1}
    return config_from_dict({"family": "edge_transformer", **shared, **SIZES, **options, **ABSOLUTE, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(stage(epochs=3), *argon_data(), tmp_path_factory.mktemp("edges"))


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
def test_the_gradient_of_the_loss_equals_finite_differences(heads: dict[str, Any]) -> None:
    """Along random directions in all parameters at once, each parameter with its own length."""
    torch.manual_seed(0)
    config = stage(**heads)
    network = make_network(config.network).double()
    batch = collate([make_frame(item, config.network, {18: 0.0}) for item in argon(2)], torch.float64)

    def loss() -> torch.Tensor:
        found = energy_forces_stress(network, batch.graph, create_graph=True)
        terms = training_loss(found, batch, config, 1.3)
        assert all(float(term.detach()) > 0 for term in terms.values())
        assert ("direct_forces" in terms) == config.network.has_both_forces
        return torch.stack(list(terms.values())).sum()

    loss().backward()  # type: ignore[no-untyped-call]
    parameters = [one for one in network.parameters() if one.grad is not None]
    assert len(parameters) > 60
    for _ in range(3):
        directions = [torch.randn_like(one) * one.abs().mean() for one in parameters]
        values = []
        for step in (1e-5, -2e-5):
            torch._foreach_add_([one.data for one in parameters], directions, alpha=step)
            values.append(float(loss().detach()))
        torch._foreach_add_([one.data for one in parameters], directions, alpha=1e-5)
        slope = sum(float((one.grad * each).sum().detach()) for one, each in zip(parameters, directions, strict=True))  # type: ignore[operator]
        assert slope == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


def test_it_trains_with_turned_structures_and_its_checkpoint_names_it(trained: Path) -> None:
    errors = [row["force_rmse_mev_per_angstrom"] for row in read_rows(trained.parent / "history.csv")]
    assert errors[-1] < 0.8 * errors[0]
    network = load(trained).network
    assert network.config == stage().network
    reference = resolve_model(trained)
    assert (reference.equivariance, reference.conservative, reference.differentiable) == ("approximate", True, True)
    assert finetune_config(load(trained), argon_data()[0], {"epochs": 1}).freeze == ("species", "neighbor_species")


def test_ase_has_the_forces_of_the_checkpoint(trained: Path) -> None:
    atoms = bulk("Ar", "fcc", a=5.2, cubic=True) * 2  # enough atoms for the cache of neighbours
    atoms.rattle(0.05, seed=1)
    atoms.calc = ForceFieldCalculator(model=str(trained))
    forces = atoms.get_forces()
    (expected,) = load_force_field(trained).evaluate([atoms])
    np.testing.assert_allclose(forces, expected.forces, atol=1e-10)
    step = np.random.default_rng(0).normal(size=forces.shape)
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions += sign * 1e-4 * step
        moved.calc = atoms.calc
        energies.append(moved.get_potential_energy())
    assert (energies[1] - energies[0]) / 2e-4 == pytest.approx(float((forces * step).sum()), rel=1e-5)


def test_a_conservative_stage_follows_a_direct_one(tmp_path: Path) -> None:
    direct = stage(epochs=1, direct_forces=True, direct_stress=True)
    first = load(train(direct, *argon_data(), tmp_path / "direct"))
    calm = stage(epochs=1, learning_rate=1e-9, ema_decay=0.0)
    second = load(train(calm, *argon_data(), tmp_path / "conservative", initial=first))
    (atoms,) = (one.atoms for one in argon(1))
    found = [load_force_field(tmp_path / name / "checkpoint.safetensors") for name in ("direct", "conservative")]
    energies = [one.evaluate(atoms)[0].energy for one in found]
    assert energies[1] == pytest.approx(energies[0], abs=1e-5)
    assert [one.declaration.conservative for one in found] == [False, True]
    assert not any(name.startswith(("force_head", "stress_head")) for name in second.network.state_dict())
    with pytest.raises(InputError, match="is another network: the stage says width=8 instead of 16"):
        train(stage(width=8), *argon_data(), tmp_path / "other", initial=first)


def test_one_checkpoint_has_conservative_and_direct_heads(tmp_path: Path, trained: Path) -> None:
    """Both are trained in one stage, the direct ones of a checkpoint without them from random weights."""
    with pytest.raises(InputError, match="direct_force_weight is for networks with both_heads"):
        stage(**{**BOTH, "direct_force_weight": 0.0})
    with pytest.raises(InputError, match="direct_force_weight is for networks with both_heads"):
        stage(direct_force_weight=1.0)
    with pytest.raises(InputError, match=r"direct_stress_weight is 2\.0, but the network has no stress head"):
        stage(**{**NO_STRESS_HEAD, "direct_stress_weight": 2.0})
    path = train(stage(**BOTH, epochs=4), *argon_data(), tmp_path / "both", initial=load(trained))
    rows = read_rows(tmp_path / "both" / "history.csv")
    for name in ("force_rmse_mev_per_angstrom", "direct_force_rmse_mev_per_angstrom"):
        assert rows[-1][name] < rows[0][name]
    found = load_force_field(path)
    assert resolve_model(path).conservative
    assert found.declaration.force_kinds == ("conservative", "direct")
    direct = found.direct()
    assert (direct.declaration.conservative, direct.declaration.differentiable) == (False, False)
    structures = [one.atoms for one in argon(2)]
    check_force_field(found, structures)
    check_force_field(direct, structures)
    (one,), (other,) = found.evaluate(structures[:1]), direct.evaluate(structures[:1])
    assert other.energy == pytest.approx(one.energy, abs=1e-12)
    assert 1e-4 < np.abs(other.forces - one.forces).max() < 0.1
    assert finetune_config(load(path), argon_data()[0], {"epochs": 1}).direct_force_weight == 1.0
    network = make_network(stage(**NO_STRESS_HEAD).network)
    headless = finetune_config(Checkpoint(network, 1.0, {18: 0.0}, (18,)), argon_data()[0], {"epochs": 1})
    assert (headless.direct_force_weight, headless.direct_stress_weight) == (1.0, 0.0)
    alone = load_force_field(trained)
    assert alone.declaration.force_kinds == ("conservative",)
    with pytest.raises(ModelError, match="has no heads that predict forces directly"):
        alone.direct()
