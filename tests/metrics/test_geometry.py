"""Distances and symmetries of relaxed structures, by hand and against the published symmetries of WBM."""

import csv
import gzip
import json
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from esen_flows.errors import InputError
from esen_flows.metrics.geometry import (
    GeometryRow,
    Symmetry,
    cumulative_distances,
    geometry_metrics,
    structure_rmsd,
    symmetry,
)

CUBIC, TETRAGONAL, TRICLINIC = Symmetry(225, 192), Symmetry(139, 16), Symmetry(1, 1)


def caesium_chloride(shift: float = 0.0, a: float = 4.0) -> Structure:
    return Structure(Lattice.cubic(a), ["Cs", "Cl"], [[0, 0, 0], [0.5 + shift, 0.5, 0.5]])


def test_rmsd_is_in_units_of_the_volume_per_atom() -> None:
    """One of two atoms moves by 0.08 Angstrom: after alignment each is 0.04 off, over (32)^(1/3) Angstrom."""
    assert structure_rmsd(caesium_chloride(), caesium_chloride()) == pytest.approx(0, abs=1e-9)
    assert structure_rmsd(caesium_chloride(0.02), caesium_chloride()) == pytest.approx(0.04 / 32 ** (1 / 3), rel=1e-6)


def test_other_crystals_do_not_match() -> None:
    other = Structure(Lattice.cubic(4.0), ["Cs", "Br"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert structure_rmsd(other, caesium_chloride()) is None


def test_means() -> None:
    rows = [
        GeometryRow(0.01, CUBIC, CUBIC),
        GeometryRow(0.03, TETRAGONAL, CUBIC),
        GeometryRow(None, CUBIC, TRICLINIC),
        GeometryRow(0.0, None, CUBIC),
    ]
    found = geometry_metrics(rows)
    assert found["rmsd"] == pytest.approx((0.01 + 0.03 + 1.0 + 0.0) / 4)
    assert found["n_sym_ops_mae"] == pytest.approx((0 + 176 + 191) / 3)
    assert (found["symmetry_decrease"], found["symmetry_match"], found["symmetry_increase"]) == pytest.approx(
        [1 / 3] * 3
    )
    assert found["n_structures"] == 3
    with pytest.raises(InputError, match="no relaxed structure"):
        geometry_metrics([])


def test_cumulative_distances() -> None:
    distances, fraction, area = cumulative_distances([0.0, 0.049, None], n_points=4)
    assert distances == pytest.approx([0, 0.05, 0.1, 0.15])
    assert fraction == pytest.approx([1 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert area == pytest.approx((0.5 + 2 / 3 + 2 / 3) / 3)


def test_symmetry_depends_on_the_tolerance() -> None:
    pytest.importorskip("moyopy", reason="no moyopy")
    assert symmetry(caesium_chloride(), 1e-5) == Symmetry(221, 48)
    assert symmetry(caesium_chloride(5e-4), 1e-5) == Symmetry(99, 8)
    assert symmetry(caesium_chloride(5e-4), 1e-2) == Symmetry(221, 48)
    coincident = Structure(Lattice.cubic(3.0), ["H", "H"], [[0, 0, 0], [0, 0, 0]])
    assert symmetry(coincident, 1e-2) is None


@pytest.mark.shared
def test_published_symmetries(shared_dir: Path) -> None:
    pytest.importorskip("moyopy", reason="no moyopy")
    file = shared_dir / "data/matcalc/wbm-random-pbe52-equilibrium-2025.1.json.gz"
    published = shared_dir / "data/matbench_discovery/wbm-dft-geo-opt-symprec=1e-2-moyo=0.3.1.csv.gz"
    with gzip.open(published, "rt") as rows:
        expected = {
            row["material_id"]: Symmetry(int(row["spg_num"]), int(row["n_sym_ops"])) for row in csv.DictReader(rows)
        }
    for row in json.loads(gzip.decompress(file.read_bytes()))[::5]:
        assert symmetry(Structure.from_dict(row["structure"]), 1e-2) == expected[row["material_id"]], row["material_id"]
