"""The campaigns of workflows/: each benchmark has a ready one, which is planned here on one crystal of its set."""

import bz2
import json
import shutil
from pathlib import Path
from typing import get_args

import emt_campaigns
import h5py
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from esen_flows.assets import asset_dir
from esen_flows.campaigns.benchmark import benchmark_of
from esen_flows.campaigns.plan import plan
from esen_flows.campaigns.spec import read_spec
from esen_flows.schemas.campaign import Benchmark
from esen_flows.settings import Settings
from esen_flows.yaml_files import read_yaml

NAMES = sorted(path.parent.name for path in asset_dir("workflows").glob("*/spec.yaml"))
OF_BENCHMARK = {
    benchmark: name for name in NAMES if (benchmark := benchmark_of(read_spec(name, anywhere=True))) is not None
}


def test_each_benchmark_has_one() -> None:
    assert set(OF_BENCHMARK) == set(get_args(Benchmark))


def write_set(folder: Path) -> None:
    """One crystal of each published set, in its format."""
    copper = bulk("Cu", cubic=True)
    copper.info["material_id"] = "wbm-1-1"
    write(folder / "wbm-initial-atoms.extxyz", copper)
    copper.info |= {"material_id": "mp-30"}
    copper.info |= {"fc2_supercell": [2] * 3, "fc3_supercell": [1] * 3, "q_mesh": [5] * 3}
    write(folder / "phononDB-PBE-structures.extxyz", copper)
    copper.calc = SinglePointCalculator(copper, energy=0.0, forces=np.zeros((4, 3)))
    write(folder / "frames.extxyz", copper)
    points = [{"symbol": "Cu", "coordinates": place} for place in copper.get_scaled_positions().tolist()]
    cell = {"lattice": copper.cell.tolist(), "points": points}
    lines = [f"unit_cell: {json.dumps(cell)}", "supercell_matrix: [[2, 0, 0], [0, 2, 0], [0, 0, 2]]"]
    with h5py.File(folder / "dynamat-reference-trajectories.h5", "w") as file:
        group = file.create_group("copper")
        group.attrs.update({"dt_fs": 1.0, "temperature_kelvin": 300.0})
        values = (copper.positions[None], copper.cell.array, copper.pbc, copper.numbers)
        for field, value in zip(("positions", "cell", "pbc", "atomic_numbers"), values, strict=True):
            group[field] = value
    (folder / "mp-30.yaml.bz2").write_bytes(bz2.compress("\n".join(lines).encode()))


@pytest.mark.mongod
def test_each_can_be_planned(embedded_settings: Settings, tmp_path: Path) -> None:
    with emt_campaigns.empty_database(embedded_settings) as store:
        for benchmark, name in sorted(OF_BENCHMARK.items()):
            folder = tmp_path / name
            folder.mkdir()
            write_set(folder)
            # EMT has no checkpoint to fetch; it computes in float64 alone.
            content = read_yaml(asset_dir("workflows") / name / "spec.yaml") | {"models": "emt", "dtype": "float64"}
            if "dataset" in content.get("structures", {}):
                content["structures"] = {"dataset": "frames.extxyz"}
            elif "structures" in content:
                content["structures"] = {"published": content["structures"]["published"], "folder": "."}
            content.pop("require", None)
            (folder / "spec.yaml").write_text(json.dumps(content))
            planned = plan(store, read_spec(folder), "")
            assert (planned.new, planned.members["pending"]) == (1, 1), benchmark
            shutil.rmtree(folder)
