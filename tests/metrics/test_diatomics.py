"""Metrics of diatomic curves: analytic curves, and facts about PBE's curves that the leaderboard states."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from esen_flows.errors import InputError
from esen_flows.metrics.diatomics import (
    ELEMENTS,
    UNRELIABLE_REFERENCES,
    DiatomicCurve,
    curves_of,
    diatomic_metrics,
    model_metrics,
    pbe_curves,
    read_curves,
    scored_window,
)
from esen_flows.schemas.diatomics import DiatomicsOutput, DiatomicsProtocol

SEPARATIONS_ANGSTROM = DiatomicsProtocol().separations_angstrom


def morse(depth: float = 4.0, bond: float = 0.9, width: float = 2.0) -> DiatomicCurve:
    """A Morse curve; its curvature is 2 depth width^2."""
    r = SEPARATIONS_ANGSTROM
    decay = np.exp(-width * (r - bond))
    forces = np.zeros((len(r), 2, 3))
    forces[:, 0, 0] = 2 * depth * width * decay * (1 - decay)
    forces[:, 1, 0] = -forces[:, 0, 0]
    return DiatomicCurve(r, depth * ((1 - decay) ** 2 - 1), forces)


def test_the_grid() -> None:
    assert len(SEPARATIONS_ANGSTROM) == 119
    assert SEPARATIONS_ANGSTROM[[0, -1]] == pytest.approx([0.1, 6.0])
    assert len(ELEMENTS) == 87


def test_a_smooth_curve() -> None:
    found = diatomic_metrics("H", morse(), morse())
    assert found["tortuosity"] == pytest.approx(1.0, abs=0.01)
    assert found["energy_diff_flips"] == 1.0
    assert found["force_flips"] == 1.0
    assert all(value == 0 for name, value in found.items() if name.startswith("pbe_"))


def test_a_longer_bond() -> None:
    found = diatomic_metrics("H", morse(bond=0.95), morse())
    assert found["pbe_bond_length_error"] == pytest.approx(0.05, abs=0.005)


def test_a_deeper_well() -> None:
    """0.5 eV deeper; the wavenumber is sqrt(2 depth width^2 / (m / 2)) / (2 pi c)."""
    found = diatomic_metrics("H", morse(4.5), morse())
    # The curve ends at 3.1 van der Waals radii, where 2 % of the depth are missing.
    assert found["pbe_well_depth_error"] == pytest.approx(0.5, abs=0.02)
    expected = 521.4709 * np.sqrt(4 / (1.008 / 2)) * (np.sqrt(2 * 4.5) - np.sqrt(2 * 4.0))
    assert found["pbe_vib_freq_error"] == pytest.approx(expected, rel=0.05)


def test_a_step_is_counted_on_both_sides() -> None:
    """A spike of 1 eV on the outer branch: the steps before and after both turns are 1, 1, 1 and 0 eV."""
    curve = morse()
    energies = curve.energies_ev.copy()
    spike = int(np.argmin(abs(curve.distances_angstrom - 2.0)))
    energies[spike] += 1.0
    rough = diatomic_metrics("H", DiatomicCurve(curve.distances_angstrom, energies, curve.forces_ev_per_angstrom), None)
    smooth = diatomic_metrics("H", curve, None)
    assert rough["energy_diff_flips"] - smooth["energy_diff_flips"] == 2
    assert rough["energy_jump"] - smooth["energy_jump"] == pytest.approx(3, abs=0.1)
    assert rough["tortuosity"] > smooth["tortuosity"]
    assert set(rough) == set(smooth)
    assert not any(name.startswith("pbe_") for name in rough)


def test_an_energy_shift_does_not_count() -> None:
    curve = morse()
    shifted = DiatomicCurve(curve.distances_angstrom, curve.energies_ev + 7.0, curve.forces_ev_per_angstrom)
    assert diatomic_metrics("H", shifted, curve)["pbe_energy_mae"] == pytest.approx(0, abs=1e-12)


def test_forces_off_the_axis_count_a_third_each() -> None:
    """An error of 0.3 eV/Angstrom in one of six components is 0.05 on average."""
    curve = morse()
    forces = curve.forces_ev_per_angstrom.copy()
    forces[:, 1, 2] += 0.3
    found = diatomic_metrics("H", DiatomicCurve(curve.distances_angstrom, curve.energies_ev, forces), curve)
    assert found["pbe_force_mae"] == pytest.approx(0.05)


def test_a_wall_that_is_not_there_costs_the_whole_radius() -> None:
    curve = morse(40.0, 0.9, 3.0)
    flat = DiatomicCurve(curve.distances_angstrom, np.zeros(119), np.zeros((119, 2, 3)))
    found = diatomic_metrics("H", flat, curve)
    assert 0.2 < found["pbe_wall_dist_mae"] < 0.9
    assert np.isnan(found["tortuosity"])


def test_curves_too_short_are_left_out() -> None:
    curve = morse()
    assert diatomic_metrics("H", curve.between(0.3, 0.33), curve) == {}
    assert np.isnan(model_metrics({}, {})["tortuosity"])


def test_a_reference_that_does_not_bind_has_no_well() -> None:
    curve = morse(0.04)
    found = diatomic_metrics("H", morse(), curve)
    assert np.isnan(found["pbe_bond_length_error"])
    assert np.isfinite(found["pbe_energy_mae"])


def test_files(tmp_path: Path) -> None:
    curve = {"distances": [0.5, 1.0], "energies": [1.0, 0.0], "forces": np.zeros((2, 2, 3)).tolist()}
    (tmp_path / "d.json.gz").write_bytes(gzip.compress(json.dumps({"homo-nuclear": {"H-H": curve}}).encode()))
    assert read_curves(tmp_path / "d.json.gz")["H"].energies_ev.tolist() == [1.0, 0.0]
    (tmp_path / "d.json").write_text("{}")
    with pytest.raises(InputError, match="no diatomic curves"):
        read_curves(tmp_path / "d.json")


@pytest.mark.shared
def test_what_is_known_of_pbe(shared_dir: Path) -> None:
    file = shared_dir / "data/matbench_discovery/figures/diatomics-dft.json.gz"
    pbe, r2scan = read_curves(file, "PBE"), read_curves(file, "r2SCAN")
    assert sum(len(curve.distances_angstrom) for curve in (*pbe.values(), *r2scan.values())) >= 9_113
    n_points = {}
    for element in pbe:
        low, high = scored_window(element, 6.0)
        n_points[element] = int(((low <= SEPARATIONS_ANGSTROM) & (high >= SEPARATIONS_ANGSTROM)).sum())
    assert (min(n_points.values()), n_points["Fr"]) == (28, 28)
    assert (max(n_points.values()), n_points["He"]) == (83, 83)
    unreliable = []
    for element in pbe:
        found = diatomic_metrics(element, pbe[element], None)
        if found["energy_jump"] >= 1.5 and found["energy_diff_flips"] >= 3:
            unreliable.append(element)
    assert tuple(unreliable) == UNRELIABLE_REFERENCES
    same = model_metrics(pbe, pbe)
    assert all(value == 0 for name, value in same.items() if name.startswith("pbe_"))


def test_points_that_are_not_finite_are_left_out_where_they_are_not_scored() -> None:
    """Helium lacks a point inside of what is scored (0.8 covalent radii, 0.22 Angstrom), hydrogen one outside of it."""
    curve = morse()
    energies = np.array([curve.energies_ev, curve.energies_ev])
    energies[0, 0] = energies[1, 60] = np.nan
    found = curves_of(
        DiatomicsOutput(
            distances_angstrom=curve.distances_angstrom,
            elements=["H", "He"],
            energies_ev=energies,
            forces_ev_per_angstrom=np.array([curve.forces_ev_per_angstrom] * 2),
            excluded={},
        )
    )
    assert list(found) == ["H"]
    assert len(found["H"].distances_angstrom) == 118


def test_pbes_curves_against_themselves() -> None:
    """The curves of the package are those of the leaderboard: 87, eight of which are not compared."""
    curves = pbe_curves()
    assert set(curves) == set(ELEMENTS)
    found = model_metrics(curves, curves)
    assert all(value == 0 for name, value in found.items() if name.startswith("pbe_"))
    assert curves["Si"].distances_angstrom[0] == pytest.approx(0.8 * 1.11)
