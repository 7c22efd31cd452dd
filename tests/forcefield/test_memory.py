"""The estimate of memory against what PyTorch's profiler records."""

import pytest
import torch
from ase.build import bulk

from esen_flows.data.batch import Graph, GraphBatch
from esen_flows.forcefield.memory import available_bytes, edges_that_fit
from esen_flows.network.derivatives import energy_forces_stress
from esen_flows.network.esen.config import PUBLISHED, ESENConfig
from esen_flows.network.esen.esen import ESEN
from esen_flows.network.esen.memory import bytes_per_edge


def peak_bytes(network, cells):
    """Most bytes that tensors held at any time of an evaluation, and its edges."""
    structures = []
    for seed in range(cells):
        structures.append(bulk("Si", cubic=True))
        structures[-1].rattle(0.05, seed=seed)
    batch = GraphBatch.collate([Graph.from_atoms(atoms, 6.0) for atoms in structures], dtype=torch.float32)
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        energy_forces_stress(network, batch)
    events = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most, batch.n_edges


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [
        {"sphere_channels": 32, "hidden_channels": 32, "edge_channels": 32},
        {"num_layers": 5, "lmax": 3, "sphere_channels": 16, "hidden_channels": 16, "edge_channels": 16},
    ],
    ids=["2 layers, lmax 2", "5 layers, lmax 3"],
)
def test_the_estimate_is_what_is_allocated(sizes, compiled, monkeypatch):
    config = ESENConfig(**sizes)
    # Temporary memory of a step of edges must not grow with these small batches.
    monkeypatch.setattr("esen_flows.network.backends.cpu.edge_chunks.CHUNK_SIZE", 64 * config.sphere_channels)
    network = ESEN(config).eval()
    network.requires_grad_(False)
    if compiled:
        network.freeze()
        if network.frozen is None:
            pytest.skip("no compiled kernels on this machine")
    else:
        monkeypatch.setattr("esen_flows.network.backends.cpu.training.sum_by_kernels", lambda *arguments: None)
    energy_forces_stress(network, GraphBatch.collate([Graph.from_atoms(bulk("Si"), 6.0)], dtype=torch.float32))
    (few, edges_of_few), (many, edges_of_many) = (peak_bytes(network, cells) for cells in (3, 9))
    measured = (many - few) / (edges_of_many - edges_of_few)
    assert bytes_per_edge(config, torch.float32, frozen=compiled) == pytest.approx(measured, rel=0.2)


def test_published_sizes():
    kilobytes = {
        (name, dtype, compiled): bytes_per_edge(PUBLISHED[name], dtype, frozen=compiled) / 1e3
        for name in ("esen_3.2m", "esen_30m_mp")
        for dtype in (torch.float32, torch.float64)
        for compiled in (False, True)
    }
    assert kilobytes["esen_3.2m", torch.float32, False] == pytest.approx(100.4, rel=0.05)
    assert kilobytes["esen_3.2m", torch.float32, True] == pytest.approx(37.9, rel=0.05)
    assert kilobytes["esen_30m_mp", torch.float32, False] == pytest.approx(712, rel=0.05)
    assert kilobytes["esen_30m_mp", torch.float32, True] == pytest.approx(286, rel=0.05)
    for (name, dtype, compiled), value in kilobytes.items():
        single = kilobytes[name, torch.float32, compiled]
        assert value == pytest.approx(single * (2 if dtype == torch.float64 else 1))


def test_edges_follow_the_memory():
    config = PUBLISHED["esen_3.2m"]
    fits = [edges_that_fit(bytes_per_edge(config, torch.float32, frozen=True), memory) for memory in (0.0, 1e9, 2e9)]
    assert fits[0] == 64
    assert fits[2] == pytest.approx(2 * fits[1], abs=1)
    assert fits[1] > 9646  # 216 atoms of silicon need no second computation within 1 GB
    assert available_bytes(torch.device("cpu")) == 1.5e9


def test_memory_that_pytorch_keeps_counts_as_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10e9, 80e9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 60e9)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20e9)
    assert available_bytes(torch.device("cuda")) == pytest.approx(0.9 * 50e9)
