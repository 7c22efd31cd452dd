"""The benchmark mdr-phonons judges a campaign of the published set; its two files are made here, of copper and iron."""

import bz2
import json
from pathlib import Path

import emt_campaigns
import pytest
from ase.build import bulk

from esen_flows.campaigns.benchmark import benchmark_of, campaign_metrics
from esen_flows.campaigns.plan import plan
from esen_flows.campaigns.reproduce import compute_here
from esen_flows.campaigns.spec import read_spec
from esen_flows.errors import InputError
from esen_flows.metrics.phonons import HarmonicValues, mdr_metrics, read_mdr_reference
from esen_flows.settings import Settings
from esen_flows.store.queries.query import query
from esen_flows.units import KELVIN_PER_THZ

SPEC = """
name: mdr
property: phonon
structures: {published: mdr, folder: .}
models: emt
protocol: mdr-loew
settings: {mesh_length_angstrom: 20, band_points: 3}
"""


def write_file(path: Path, symbol: str) -> None:
    """A file with the fields of the set that are read, in JSON, which is YAML too, one field a line."""
    atoms = bulk(symbol, cubic=True)
    points = [{"symbol": symbol, "coordinates": place} for place in atoms.get_scaled_positions().tolist()]
    fields = {
        "entropy": [0.0, 10.0, 30.0], "free_e": [1.0, 2.0, 3.0], "heat_capacity": [0.0, 20.0, 24.0],
        "phonon_freq": [[0.0, 5.0], [6.0, 7.0]], "temperatures": [0.0, 75.0, 300.0],
        "supercell_matrix": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        "unit_cell": {"lattice": atoms.cell.tolist(), "points": points},
    }  # fmt: skip
    path.write_bytes(bz2.compress("\n".join(f"{name}: {json.dumps(value)}" for name, value in fields.items()).encode()))


@pytest.mark.mongod
def test_errors_of_a_campaign(embedded_settings: Settings, tmp_path: Path) -> None:
    write_file(tmp_path / "mp-30.yaml.bz2", "Cu")
    write_file(tmp_path / "mp-13.yaml.bz2", "Fe")
    (tmp_path / "spec.yaml").write_text(SPEC)
    spec = read_spec(tmp_path)
    assert benchmark_of(spec) == "mdr-phonons"
    with emt_campaigns.empty_database(embedded_settings) as store:
        plan(store, spec, SPEC)
        compute_here(store, "mdr")
        (found,) = campaign_metrics(store, "mdr")
        (document,) = query(store, "phonon")
    assert (found.n_materials, found.n_done, found.done["mdr_failed"]) == (2, 2, 1)  # EMT does not know iron
    summary = document.summary
    highest = summary["max_commensurate_frequency_thz"]
    assert isinstance(highest, float)
    # Gamma alone is commensurate with one cell, whose primitive cell has three modes of zero frequency there.
    assert found.done["mdr_max_frequency_mae_k"] == pytest.approx((7.0 - highest) * KELVIN_PER_THZ)
    assert highest == pytest.approx(0.0, abs=1e-3)
    assert found.done["mdr_entropy_mae_j_per_k_mol"] == pytest.approx(abs(summary["entropy_j_per_k_mol_at_300K"] - 30))
    assert found.done["mdr_heat_capacity_mae_j_per_k_mol"] == pytest.approx(
        abs(summary["heat_capacity_j_per_k_mol_at_300K"] - 24)
    )
    rows = {row["material"]: row for row in found.materials}
    assert rows["mp-13"]["max_frequency_k"] is None
    assert rows["mp-30"]["reference_free_energy_kj_per_mol"] == 3.0


def test_means_of_absolute_errors() -> None:
    one, other = HarmonicValues(100.0, 50.0, -3.0, 24.0), HarmonicValues(110.0, 49.0, -3.5, 24.0)
    found = mdr_metrics([(one, other), (one, one)])
    assert found == {
        "mdr_max_frequency_mae_k": 5.0, "mdr_entropy_mae_j_per_k_mol": 0.5, "mdr_free_energy_mae_kj_per_mol": 0.25,
        "mdr_heat_capacity_mae_j_per_k_mol": 0.0,
    }  # fmt: skip


def test_a_file_without_values_is_named(tmp_path: Path) -> None:
    (tmp_path / "mp-1.yaml.bz2").write_bytes(bz2.compress(b"temperatures: [0.0, 75.0]\nentropy: [0.0, 1.0]\n"))
    with pytest.raises(InputError, match=r"mp-1.yaml.bz2 is not a phonopy file of the MDR set"):
        read_mdr_reference(tmp_path / "mp-1.yaml.bz2")
