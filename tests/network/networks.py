"""Small networks of every kind and a batch with every kind of structure, for tests of the kernels."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar
from unittest.mock import patch

import torch
from ase import Atoms
from ase.build import bulk, molecule

from esen_flows.data.batch import Graph, GraphBatch
from esen_flows.network.esen.config import ESENConfig
from esen_flows.network.esen.esen import ESEN

T = TypeVar("T")
SMALL = ESENConfig(sphere_channels=8, hidden_channels=6, edge_channels=5, max_num_elements=20, cutoff_angstrom=4.0)
VARIANTS = {
    "published": SMALL,
    "lmax 3": replace(SMALL, lmax=3),
    "mmax 1, real": replace(SMALL, mmax=1, so2_weights="real"),
    "lmax 4, real": replace(SMALL, lmax=4, mmax=3, so2_weights="real"),
    "lmax 1": replace(SMALL, lmax=1, mmax=1, norm_type="layer_norm"),
    "lmax 6": replace(SMALL, lmax=6, num_layers=1),
    "no envelope, Bessel": replace(SMALL, use_envelope=False, distance_function="bessel", norm_type="layer_norm_sh"),
    "grid on nodes": replace(SMALL, mlp_type="grid"),
    "neighbour limit": replace(SMALL, max_neighbors=9),
    "charge and spin": replace(SMALL, charge_spin_embedding="rand_emb"),
    "direct": replace(SMALL, direct_forces=True, direct_stress="target", denoising=True),
}


def network(config: ESENConfig, dtype: torch.dtype = torch.float64) -> ESEN:
    torch.manual_seed(1)
    made = ESEN(config).to(dtype)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn_like(parameter)  # biases start at zero and would not be seen
    return made.requires_grad_(False)


def batch(config: ESENConfig, dtype: torch.dtype = torch.float64) -> GraphBatch:
    silicon, aluminium = bulk("Si", "diamond", 5.4, cubic=True), bulk("Al", "fcc", 3.7, cubic=True)
    for crystal in (silicon, aluminium):  # a layer norm of features that vanish by symmetry would amplify rounding
        crystal.rattle(0.1, seed=3)
    # A crystal, a molecule, an atom without neighbours, a cell smaller than the cutoff.
    structures = [silicon, molecule("CH3CH2OH"), Atoms("O"), aluminium]
    graphs = [Graph.from_atoms(atoms, config.cutoff_angstrom, config.max_neighbors) for atoms in structures]
    return GraphBatch.collate(graphs, dtype=dtype)


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    scale = max(1.0, other.nan_to_num().abs().max().item())
    torch.testing.assert_close(one.isnan(), other.isnan())
    return (one.nan_to_num() - other.nan_to_num()).abs().max().item() / scale


def results_by_threads(compute: Callable[[], T]) -> list[T]:
    """Results of a function with 1, 2 and 3 threads."""
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(compute())
    finally:
        torch.set_num_threads(threads)
    return results


@contextmanager
def plain_modules() -> Iterator[None]:
    """Networks that are not frozen are evaluated without kernels."""
    with patch("esen_flows.network.backends.cpu.training.sum_by_kernels", lambda *arguments: None):
        yield
