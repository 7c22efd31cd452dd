"""Combined scores of the leaderboard: CPS over all tasks, CDS of diatomics, CMDS of molecular dynamics."""

import math
from collections.abc import Mapping

# Elements that the diatomics task scores.
N_DIATOMICS = 87
_RMSD_BASELINE = 0.15
# For each metric of the diatomics task: weight, best value, value that scores nothing.
_DIATOMICS = {
    "pbe_energy_mae": (4 / 9 * 5 / 9, 0.0, 4.0),
    "pbe_force_mae": (4 / 9 * 4 / 9, 0.0, 5.0),
    "pbe_wall_dist_mae": (2 / 9 * 1 / 2, 0.0, 0.5),
    "pbe_bond_length_error": (2 / 9 * 1 / 3, 0.0, 0.8),
    "pbe_well_depth_error": (2 / 9 * 1 / 6, 0.0, 3.5),
    "energy_jump": (2 / 9 * 2 / 5, 0.0, 3.0),
    "force_flips": (2 / 9 * 2 / 5, 1.0, 3.5),
    "tortuosity": (2 / 9 * 1 / 5, 1.0, 2.0),
}
_DIATOMICS_SECONDS = (1 / 9, 50.0, 5_000.0)
_MD_ERRORS = {"vdos_error": 0.3, "adf_error": 0.2, "pressure_error": 0.3}
_MD_SECONDS = (0.2, 9_000.0, 300_000.0)


def combined_performance_score(f1: float | None, kappa_srme: float | None, rmsd: float | None) -> float | None:
    """CPS = 0.5 F1 + 0.4 (1 - SRME / 2) + 0.1 (1 - RMSD / 0.15), the last term between 0 and 1.

    Parameters
    ----------
    f1
        F1 of the unique prototypes.
    kappa_srme
        Mean SRME of PhononDB's 103 crystals.
    rmsd
        RMSD of the relaxed structures in the unit of StructureMatcher.

    Returns
    -------
    float or None
        Score between 0 and 1; None if one of the three is missing.
    """
    if f1 is None or kappa_srme is None or rmsd is None:
        return None
    return 0.5 * f1 + 0.4 * (1 - kappa_srme / 2) + 0.1 * min(max(1 - rmsd / _RMSD_BASELINE, 0.0), 1.0)


def combined_diatomics_score(metrics: Mapping[str, object]) -> float | None:
    """CDS: accuracy 4/9, geometry 2/9, physicality 2/9 and speed 1/9, times the fraction of the elements.

    Parameters
    ----------
    metrics
        Metrics of the diatomics task by the keys of a model card, with "run_time_sec" in seconds; the elements that
        were left out are the keys of "excluded_formula_reasons".

    Returns
    -------
    float or None
        Score between 0 and 1; None if a metric is missing.
    """
    values = {name: _number(metrics.get(name)) for name in (*_DIATOMICS, "run_time_sec")}
    if any(value is None for value in values.values()):
        return None
    score = sum(weight * _linear(values[name], best, worst) for name, (weight, best, worst) in _DIATOMICS.items())
    weight, best, worst = _DIATOMICS_SECONDS
    score += weight * _logarithmic(values["run_time_sec"], best, worst)
    excluded = metrics.get("excluded_formula_reasons")
    return score * (1 - (len(excluded) if isinstance(excluded, Mapping) else 0) / N_DIATOMICS)


def combined_md_score(metrics: Mapping[str, object]) -> float | None:
    """CMDS: vibrations 0.3, angles 0.2, pressure 0.3 and speed 0.2.

    Parameters
    ----------
    metrics
        Metrics of the molecular dynamics task by the keys of a model card: errors in %, "run_time_sec" in seconds.

    Returns
    -------
    float or None
        Score between 0 and 1; None if a metric is missing.
    """
    values = {name: _number(metrics.get(name)) for name in (*_MD_ERRORS, "run_time_sec")}
    if any(value is None for value in values.values()):
        return None
    weight, best, worst = _MD_SECONDS
    score = weight * _logarithmic(values["run_time_sec"], best, worst)
    return score + sum(share * (1 - (values[name] or 0.0) / 100) for name, share in _MD_ERRORS.items())


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _linear(value: float | None, best: float, worst: float) -> float:
    """1 at the best value, 0 at the worst one and beyond."""
    assert value is not None
    return min(max(1 - (value - best) / (worst - best), 0.0), 1.0)


def _logarithmic(seconds: float | None, best: float, worst: float) -> float:
    assert seconds is not None
    return _linear(math.log10(max(seconds, 1e-9)), math.log10(best), math.log10(worst))
