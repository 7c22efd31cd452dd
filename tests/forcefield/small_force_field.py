"""A small eSEN with random weights, and the comparison of results."""

import numpy as np
import pytest
import torch

from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.network.esen.config import ESENConfig
from esen_flows.network.esen.esen import ESEN


def small_checkpoint(seed=0, elements=(1, 6, 8, 14), **options):
    torch.manual_seed(seed)
    sizes = {"sphere_channels": 8, "hidden_channels": 10, "edge_channels": 6, "cutoff_angstrom": 4.0}
    network = ESEN(ESENConfig(**sizes | options))
    return Checkpoint(network, 1.7, {14: -5.4, 8: -2.0}, elements, model_key="k" * 64)


def rattled(atoms, seed=0):
    atoms.rattle(0.05, seed=seed)
    return atoms


def assert_equal(results, expected, energy_tolerance=1e-12):
    """Energies, forces and stresses are the same, and so are the energies of atoms."""
    for one, other in zip(results, expected, strict=True):
        assert one.energy == pytest.approx(other.energy, abs=energy_tolerance)
        for name in ("forces", "stress", "energies"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=0, atol=1e-12)
