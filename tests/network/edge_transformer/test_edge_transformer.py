"""The edge transformer: published sizes, exact symmetries, smoothness, conservative and direct heads."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from esen_flows.data.batch import Graph, GraphBatch
from esen_flows.data.batch_state import BatchState
from esen_flows.errors import ModelError
from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.forcefield.direct import DirectForces
from esen_flows.forcefield.families import make_network
from esen_flows.forcefield.lists import evaluations
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.network.edge_transformer.config import PRESETS, EdgeTransformerConfig
from esen_flows.network.edge_transformer.cutoffs import adaptive_cutoffs, log_switch
from esen_flows.testing import check_force_field

SMALL = EdgeTransformerConfig(width=16, num_heads=4, cutoff_angstrom=4.0, max_num_elements=20)
ADAPTIVE = replace(SMALL, cutoff_angstrom=5.0, adaptive_neighbors=5.0)
DIRECT = replace(ADAPTIVE, direct_forces=True, direct_stress=True)
BOTH = replace(DIRECT, both_heads=True)


def force_field(config: EdgeTransformerConfig, **options: Any) -> NetworkForceField:
    torch.manual_seed(0)
    return NetworkForceField(Checkpoint(make_network(config), 1.7, {}, (1, 6, 8, 14), model_key="k" * 64), **options)


def structures() -> list[Atoms]:
    """A crystal, a molecule, and an atom without neighbours."""
    crystal = bulk("SiC", "zincblende", 4.6) * (2, 1, 1)
    crystal.rattle(0.1, seed=3)
    return [crystal, molecule("CH3OH"), Atoms("O")]


def test_presets_have_the_published_numbers_of_parameters() -> None:
    with torch.device("meta"):
        networks = {name: make_network(config) for name, config in PRESETS.items()}
    millions = {name: sum(p.numel() for p in one.parameters()) / 1e6 for name, one in networks.items()}
    assert {name: round(value, 1) for name, value in millions.items()} == {
        "XS": 4.5, "S": 25.9, "M": 108.6, "L": 255.4, "XL": 730.1,
    }  # fmt: skip


@pytest.mark.parametrize("config", [SMALL, ADAPTIVE, DIRECT], ids=["fixed cutoff", "adaptive cutoff", "direct"])
def test_it_keeps_what_it_declares(config: EdgeTransformerConfig) -> None:
    """Translations, permutations, images, batches; forces, stress and Hessian are derivatives where conservative."""
    deviations = check_force_field(force_field(config), structures())
    assert deviations["rotation"] > 1e-6  # not built in
    assert ("Hessian is the derivative of the forces" in deviations) == config.conservative


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-10), ("float32", 1e-6)])
def test_the_jacobian_of_conservative_forces_is_symmetric(dtype: Any, limit: float) -> None:
    found = force_field(BOTH, dtype=dtype)
    for atoms in structures()[:2]:
        directions = np.eye(3 * len(atoms)).reshape(-1, len(atoms), 3)
        jacobian = found.hessian_vector_products(atoms, directions).reshape(3 * len(atoms), -1)
        assert 0 < np.linalg.norm(jacobian - jacobian.T) / 2 <= limit * np.linalg.norm(jacobian)


@pytest.mark.parametrize("config", [BOTH, replace(BOTH, direct_stress=False)], ids=["two heads", "no stress head"])
def test_one_pass_gives_what_two_calls_give(config: EdgeTransformerConfig) -> None:
    """The forces of multiple time steps, whose direct part is balanced; one pass counts as one evaluation."""
    found, many = force_field(config), structures()
    direct = DirectForces(found)
    expected = list(zip(found.evaluate(many), direct.evaluate(many), strict=True))
    before = found.force_evaluations
    state = BatchState.of(many)
    both = direct.evaluate_beside_gradient(state)
    assert found.force_evaluations == before + len(many)
    together = list(zip(*(evaluations(found, result, state) for result in both), strict=True))
    for one, other in zip((x for pair in together for x in pair), (x for pair in expected for x in pair), strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-12)
        np.testing.assert_allclose(one.forces, other.forces, rtol=0, atol=1e-12)
        np.testing.assert_allclose(one.stress, other.stress, rtol=0, atol=1e-14)
    assert np.abs(together[0][0].forces - together[0][1].forces).max() > 1e-3
    with pytest.raises(ModelError, match="no heads that predict forces directly"):
        force_field(SMALL).evaluate_both(state)


@pytest.mark.parametrize("config", [SMALL, ADAPTIVE], ids=["fixed cutoff", "adaptive cutoff"])
def test_the_energy_is_smooth_where_neighbours_come_and_go(config: EdgeTransformerConfig) -> None:
    """Second differences fall as the step squared; a kink or jump anywhere on the way would keep them larger."""
    found = force_field(config)
    largest = []
    for count in (121, 241):
        path = []
        for distance in np.linspace(3.0, 5.2, count):
            path.append(molecule("OH"))
            path[-1].append("C")
            path[-1].positions[-1] = path[0].positions[0] + distance * np.array([0.48, 0.6, 0.64])
        energies = np.array([one.energy for one in found.evaluate(path)])
        largest.append(np.abs(np.diff(energies, 2)).max())
    assert np.ptp(energies) > 0.005
    assert largest[0] / largest[1] == pytest.approx(4, rel=0.1)
    assert energies[-1] == pytest.approx(energies[-3], abs=1e-12)  # out of reach


def test_adaptive_cutoffs_solve_their_equation() -> None:
    graph = GraphBatch.collate([Graph.from_atoms(atoms, 5.0) for atoms in structures()])
    distance = torch.linalg.vector_norm(graph.vectors, dim=1).requires_grad_(True)

    def cutoffs(values: torch.Tensor) -> torch.Tensor:
        return adaptive_cutoffs(values, graph.target, len(graph.numbers), 5.0, 5.0)

    radius = cutoffs(distance)
    switch = log_switch(distance, radius[graph.target], 1.0).exp()
    counted = torch.zeros_like(radius).index_add(0, graph.target, switch)
    torch.testing.assert_close(counted + 5 * (radius / 5).pow(3), torch.full_like(radius, 5.0), rtol=1e-10, atol=0)
    assert radius[-1] == 5.0  # an atom alone
    assert radius.min() < 3.5
    inputs = (distance.detach().requires_grad_(True),)
    assert torch.autograd.gradcheck(cutoffs, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(cutoffs, inputs, fast_mode=True)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"width": 20, "num_heads": 8}, "width must be a multiple of num_heads, got 20 and 8"),
        ({"direct_forces": "false"}, "direct_forces must be true or false"),
        ({"direct_stress": True}, "set direct_forces too"),
        ({"both_heads": True}, "set direct_forces too"),
        ({"adaptive_neighbors": 0}, "adaptive_neighbors must be positive"),
        ({"num_gnn_layers": 2.5}, "num_gnn_layers must be an integer"),
        ({"cutoff_width_angstrom": 9.0}, "at most cutoff_angstrom"),
    ],
)
def test_wrong_options_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EdgeTransformerConfig(**values)
