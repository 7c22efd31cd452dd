"""Combined scores, against those that the leaderboard shows."""

from pathlib import Path

import pytest
import yaml

from esen_flows.metrics.scores import combined_diatomics_score, combined_md_score, combined_performance_score


def test_the_best_and_the_worst() -> None:
    assert combined_performance_score(1.0, 0.0, 0.0) == pytest.approx(1.0)
    assert combined_performance_score(0.0, 2.0, 0.3) == pytest.approx(0.0)
    best = {"pbe_energy_mae": 0, "pbe_force_mae": 0, "pbe_wall_dist_mae": 0, "pbe_bond_length_error": 0}
    best |= {"pbe_well_depth_error": 0, "energy_jump": 0, "force_flips": 1, "tortuosity": 1, "run_time_sec": 10}
    assert combined_diatomics_score(best) == pytest.approx(1.0)
    assert combined_diatomics_score(best | {"excluded_formula_reasons": {"U-U": "no"}}) == pytest.approx(86 / 87)
    assert combined_diatomics_score(best | {"run_time_sec": 500}) == pytest.approx(8 / 9 + 1 / 18)
    assert combined_md_score({"vdos_error": 100, "adf_error": 100, "pressure_error": 100, "run_time_sec": 9e6}) == 0


def test_a_missing_part_leaves_no_score() -> None:
    assert combined_performance_score(0.8, None, 0.07) is None
    assert combined_diatomics_score({"tortuosity": 1.0}) is None
    assert combined_md_score({"vdos_error": 1.0, "adf_error": float("nan")}) is None


@pytest.mark.shared
@pytest.mark.parametrize(
    ("model", "cps", "cds", "cmds"),
    [
        ("esen-30m-mp", 0.7974, 0.4167, 0.5926),
        ("esen-30m-oam", 0.8879, 0.6485, 0.6248),
        ("mace-mp-0", 0.6370, 0.6275, 0.6333),
        ("chgnet-0.3.0", 0.3999, 0.2968, 0.5535),
        ("sevennet-l3i5", 0.7136, 0.5329, None),
        ("allegro-oam-l-0.1", None, 0.8276, None),
        ("orb-v2", None, None, 0.7502),
    ],
)
def test_published_scores(
    shared_dir: Path, model: str, cps: float | None, cds: float | None, cmds: float | None
) -> None:
    metrics = yaml.safe_load((shared_dir / f"data/matbench_discovery/models/{model}.yml").read_text())["metrics"]
    performance = combined_performance_score(
        metrics["discovery"]["unique_prototypes"]["F1"],
        metrics["phonons"]["kappa_103"]["κ_SRME"],
        metrics["geo_opt"]["symprec=1e-2"]["rmsd"],
    )
    assert cps is None or performance == pytest.approx(cps, abs=5e-5)
    assert cds is None or combined_diatomics_score(metrics["diatomics"]) == pytest.approx(cds, abs=5e-5)
    assert cmds is None or combined_md_score(metrics["md"]) == pytest.approx(cmds, abs=5e-5)
