"""What the speed benchmark claims of its rows: counts of operations, structures, and that a run writes what it says."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from esen_flows.data.batch import Graph, GraphBatch
from esen_flows.data.neighbors import neighbor_pairs
from esen_flows.network.derivatives import energy_forces_stress
from esen_flows.network.esen.config import PUBLISHED, ESENConfig
from esen_flows.network.esen.esen import ESEN

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("benchmarks are in the checkout only", allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))

import esen_speed  # noqa: E402
from esen_speed_cases import FULL, GPU, SCALING, UNLIMITED, Case, moved, structure  # noqa: E402
from esen_speed_floor import Sizes, floor_call, floor_flops, formula_flops, products, timed  # noqa: E402


def sizes_of(config: ESENConfig) -> Sizes:
    return Sizes(**{name: getattr(config, name) for name in Sizes.__dataclass_fields__})


def test_operations_of_the_published_networks() -> None:
    # 216 Si atoms at 6 Angstrom, 9614 edges, counted by hand from the layers' shapes, in GFLOP:
    # 75 forward and 151 with the gradient for 3.2M, 807 and 1613 for 30M.
    small, large = (sizes_of(PUBLISHED[name]) for name in ("esen_3.2m", "esen_30m_mp"))
    assert formula_flops(small, 216, 9614) / 1e9 == pytest.approx(151, abs=0.5)
    assert formula_flops(large, 216, 9614) / 1e9 == pytest.approx(1613, abs=1)
    convolutions = [product for product in products(small) if product.name.startswith("conv")]
    assert 2 * sum(product.flops(216, 9614) for product in convolutions) / 1e9 == pytest.approx(125, abs=0.5)
    # A prototype's bare products were 141; ours count the node blocks and the edge-degree embedding too.
    assert 141 < floor_flops(small, 216, 9614) / 1e9 < 143


def test_the_floor_runs_the_products_it_counts() -> None:
    sizes = Sizes(2, 2, 2, 8, 6, 4, 5)
    call = floor_call(sizes, 10, 5000, torch.float32)  # more edges than the rows of a chunk
    with FlopCounterMode(display=False) as counted:
        call()
    assert counted.get_total_flops() == floor_flops(sizes, 10, 5000)
    assert timed(call).seconds > 0


def test_the_network_does_no_less_than_the_floor() -> None:
    config = ESENConfig(sphere_channels=16, hidden_channels=24, edge_channels=12)
    atoms = structure("Si", 8)
    graph = GraphBatch.collate([Graph.from_atoms(atoms, config.cutoff_angstrom)], dtype=torch.float64)
    network = ESEN(config).double().requires_grad_(False)
    with FlopCounterMode(display=False) as counted:
        energy_forces_stress(network, graph)
    assert counted.get_total_flops() > 0.95 * floor_flops(sizes_of(config), 8, graph.n_edges)


@pytest.mark.parametrize(
    ("kind", "atoms", "neighbors"), [("Si", 216, 44.6), ("Cu", 108, 78.0), ("diamond", 64, 158.0), ("water", 192, 85.0)]
)
def test_structures(kind: str, atoms: int, neighbors: float) -> None:
    made = structure(kind, atoms)
    pairs = neighbor_pairs(made, 6.0)
    assert len(made) == atoms
    assert len(pairs.source) / atoms == pytest.approx(neighbors, rel=0.01)
    vectors = pairs.vectors.numpy()
    distance = np.linalg.norm(vectors, axis=1)
    assert distance.min() > 0.75
    # The reference snaps edges within 1.4e-3 rad of y.
    assert np.arccos(np.abs(vectors[:, 1]) / distance).min() > 5e-3


def test_structures_come_in_whole_cells() -> None:
    with pytest.raises(ValueError, match=r"cells of 8 atoms, got 100"):
        structure("Si", 100)
    with pytest.raises(ValueError, match=r"cube of molecules .* got 100"):
        structure("water", 100)
    for case in [*FULL, *SCALING, *GPU]:
        if case.atoms < 1000:
            assert len(structure(case.structure, case.atoms)) == case.atoms


def test_atoms_move_from_call_to_call() -> None:
    positions = structure("Si", 8).positions
    assert np.array_equal(moved(positions, 0), positions)
    assert 0 < np.abs(moved(positions, 1) - positions).max() < 0.01
    assert not np.array_equal(moved(positions, 1), moved(positions, 2))


def test_scaling_recovers_a_power() -> None:
    rows = [
        {
            "allocator": "tuned",
            "memory_bytes": memory,
            "atoms": n,
            "seconds": n**1.5 * (1 if memory is None else n),
            "cpu_seconds": 2.0 * n,
            "neighbor_list_cpu_seconds": 0.02 * n,
            "peak_mb": n / 10,
        }
        for memory in (None, 2e9)
        for n in (64, 216, 1000, 20000)
    ]
    assert esen_speed.scaling(rows)["tuned, 2 GB"]["exponent_seconds"] == pytest.approx(2.5)
    found = esen_speed.scaling(rows)["tuned"]
    assert found["exponent_cpu_seconds"] == pytest.approx(1.0)
    assert found["exponent_seconds"] == pytest.approx(1.5)
    assert found["neighbor_list_share"] == pytest.approx([0.01] * 4)


def test_published_names_of_the_weights(tmp_path: Path, shared_dir: Path) -> None:
    esen_speed.write_weights(tmp_path, PUBLISHED["esen_3.2m"])
    written = torch.load(tmp_path / "published.pt", weights_only=True)
    listings = (shared_dir / "fixtures" / "esen" / "state_dict_keys").glob("*.tsv")
    names = [{line.split("\t")[0] for line in path.read_text().splitlines()[1:]} for path in listings]
    ours = {name for name in written if name.startswith("backbone.")}
    assert any(ours <= listed for listed in names)


@pytest.mark.parametrize("memory", [None, UNLIMITED])
def test_a_run_writes_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: float | None) -> None:
    output = tmp_path / "speed.json"
    monkeypatch.setitem(PUBLISHED, "tiny", ESENConfig(sphere_channels=8, hidden_channels=8, edge_channels=8))
    monkeypatch.setattr(esen_speed, "SMOKE", [Case("tiny", "Si", 8, memory_bytes=memory)])
    arguments = ["--smoke", "--repeats", "1", "--threads", "1", "--allocators", "default", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["esen_speed.py", *arguments, "--environments", str(tmp_path / "nowhere")])
    esen_speed.main()
    document = json.loads(output.read_text())
    assert {"device", "cpu", "threads", "load_average", "rows"} <= set(document)
    (row,) = document["rows"]
    assert (row["model"], row["structure"], row["atoms"], row["dtype"]) == ("tiny", "Si", 8, "float32")
    assert row["ratio_floor"] == pytest.approx(row["cpu_seconds"] / row["floor_cpu_seconds"])
    assert row["peak_mb"] > 50
    assert row["memory_bytes"] == memory
    assert row["versions"]["torch"] == version("torch")
    assert 0 < row["forces_error"] < 1e-4
    assert row["ratio_cpu"] == row["ratio_wall"] == {}
    assert "reference_env.sh" in row["reference"]["fairchem-core 1.10.0"]["error"]
    assert output.with_suffix(".png").stat().st_size > 1000
