"""Stability of crystals against DFT: classification and errors of the distance to the convex hull."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from esen_flows.errors import InputError
from esen_flows.metrics.statistics import bootstrap_interval

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
# A formation energy that is further than this from DFT's counts as missing.
OUTLIER_EV_PER_ATOM = 5.0
STABLE_BELOW_EV_PER_ATOM = 0.0  # inclusive
MOST_STABLE = 10_000
_E_FORM, _E_HULL = "e_form_per_atom_mp2020_corrected", "e_above_hull_mp2020_corrected_ppd_mp"
_SUMMARY_COLUMNS = ("material_id", _E_FORM, _E_HULL, "unique_prototype")


@dataclass(frozen=True)
class DiscoveryReference:
    """DFT's values of the benchmark's crystals, in one order.

    Attributes
    ----------
    material_ids
        (n,) numbers of the crystals.
    e_form_ev_per_atom
        (n,) formation energies with MP2020 corrections in eV/atom.
    e_above_hull_ev_per_atom
        (n,) distances to the convex hull of the Materials Project in eV/atom, negative below it; not rounded. NaN where
        the distance is not known, which no crystal of the leaderboard has.
    unique_prototype
        (n,) whether the crystal belongs to the subset of unique prototypes.
    """

    material_ids: NDArray[np.str_]
    e_form_ev_per_atom: Floats
    e_above_hull_ev_per_atom: Floats
    unique_prototype: Booleans

    def rows(self, chosen: Booleans) -> "DiscoveryReference":
        """Some of the crystals.

        Parameters
        ----------
        chosen
            (n,) whether a crystal is kept.

        Returns
        -------
        DiscoveryReference
            Values of the chosen crystals.
        """
        return DiscoveryReference(
            self.material_ids[chosen],
            self.e_form_ev_per_atom[chosen],
            self.e_above_hull_ev_per_atom[chosen],
            self.unique_prototype[chosen],
        )


def read_discovery_reference(path: Path) -> DiscoveryReference:
    """DFT's values of WBM's crystals.

    Crystals whose formation energy lies beyond 5 eV/atom are left out, as the leaderboard does.

    Parameters
    ----------
    path
        wbm-summary.csv.gz of Matbench Discovery, compressed or not.

    Returns
    -------
    DiscoveryReference
        Values in the order of the file.

    Raises
    ------
    InputError
        The file cannot be read, or a column is missing.
    """
    try:
        table = pd.read_csv(path, usecols=list(_SUMMARY_COLUMNS))
        table = table[table[_E_FORM].abs() <= OUTLIER_EV_PER_ATOM]
        return DiscoveryReference(
            material_ids=np.array(table["material_id"], dtype=str),
            e_form_ev_per_atom=np.array(table[_E_FORM], dtype=float),
            e_above_hull_ev_per_atom=np.array(table[_E_HULL], dtype=float),
            unique_prototype=np.array(table["unique_prototype"], dtype=bool),
        )
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise InputError(f"{path}: no summary of WBM can be read ({type(error).__name__}: {error})") from None


@dataclass(frozen=True)
class Counts:
    """Numbers of crystals by predicted and true stability.

    Attributes
    ----------
    tp
        Number of crystals that are stable and predicted stable.
    fp
        Number of crystals that are unstable and predicted stable.
    tn
        Number of crystals that are unstable and predicted unstable.
    fn
        Number of crystals that are stable and predicted unstable.
    """

    tp: int
    fp: int
    tn: int
    fn: int

    @classmethod
    def of(cls, true: Floats, predicted: Floats) -> "Counts":
        """Counts of two columns of hull distances.

        Parameters
        ----------
        true
            (n,) distances by DFT in eV/atom.
        predicted
            (n,) predicted distances in eV/atom; NaN, a missing prediction, counts as unstable.

        Returns
        -------
        Counts
            Numbers of the four kinds.
        """
        stable = true <= STABLE_BELOW_EV_PER_ATOM
        positive = predicted <= STABLE_BELOW_EV_PER_ATOM  # False for NaN
        tp, fp = int((stable & positive).sum()), int((~stable & positive).sum())
        return cls(tp, fp, int((~stable).sum()) - fp, int(stable.sum()) - tp)

    @property
    def prevalence(self) -> float:
        """Fraction of the crystals that are stable."""
        return _ratio(self.tp + self.fn, self.tp + self.fp + self.tn + self.fn)

    def rates(self, prevalence: float | None = None) -> dict[str, float]:
        """Rates of the classification, under the keys of the leaderboard's model cards.

        Parameters
        ----------
        prevalence
            Fraction of stable crystals that DAF divides the precision by. Default: that of these counts.

        Returns
        -------
        dict
            "F1", "DAF", "Precision", "Recall", "Accuracy", "TPR", "FPR", "TNR", "FNR"; NaN for a ratio of 0 to 0.
        """
        precision = _ratio(self.tp, self.tp + self.fp)
        recall = _ratio(self.tp, self.tp + self.fn)
        total = self.tp + self.fp + self.tn + self.fn
        return {
            "F1": _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn),
            "DAF": _ratio(precision, self.prevalence if prevalence is None else prevalence),
            "Precision": precision,
            "Recall": recall,
            "Accuracy": _ratio(self.tp + self.tn, total),
            "TPR": recall,
            "FPR": _ratio(self.fp, self.fp + self.tn),
            "TNR": _ratio(self.tn, self.tn + self.fp),
            "FNR": _ratio(self.fn, self.tp + self.fn),
        }


def _ratio(first: float, second: float) -> float:
    return first / second if second else float("nan")


def subset_metrics(true: Floats, predicted: Floats, prevalence: float | None = None) -> dict[str, Any]:
    """Metrics of one subset, under the keys of the leaderboard's model cards.

    Parameters
    ----------
    true
        (n,) hull distances by DFT in eV/atom, rounded as the leaderboard does.
    predicted
        (n,) predicted hull distances in eV/atom, NaN where there is none: a missing prediction counts as unstable in
        the classification, and is left out of MAE, RMSE and R2.
    prevalence
        Fraction of stable crystals that DAF divides by. Default: that of this subset.

    Returns
    -------
    dict
        The rates of `Counts.rates`, "TP", "FP", "TN", "FN", "MAE" and "RMSE" in eV/atom, "R2", "missing_preds", and
        "plain_DAF", which divides by the prevalence of this subset.
    """
    counts = Counts.of(true, predicted)
    present = np.isfinite(predicted)
    error = predicted[present] - true[present]
    spread = float(((true[present] - true[present].mean()) ** 2).sum()) if present.any() else 0.0
    return {
        **counts.rates(prevalence),
        "plain_DAF": counts.rates()["DAF"],
        "TP": counts.tp,
        "FP": counts.fp,
        "TN": counts.tn,
        "FN": counts.fn,
        "MAE": float(np.abs(error).mean()) if error.size else float("nan"),
        "RMSE": float(np.sqrt((error**2).mean())) if error.size else float("nan"),
        "R2": 1 - float((error**2).sum()) / spread if spread else float("nan"),
        "missing_preds": int((~present).sum()),
    }


def predicted_hull_distances(reference: DiscoveryReference, predicted: Mapping[str, float]) -> Floats:
    """Hull distances by predicted formation energies.

    The hull is DFT's and does not move, so that a distance differs from DFT's by as much as the formation energy.

    Parameters
    ----------
    reference
        DFT's values.
    predicted
        Formation energy in eV/atom by material, with the corrections that the force field's energies need.

    Returns
    -------
    ndarray
        (n,) distances in eV/atom, NaN where there is no prediction or where it is an outlier, further than 5 eV/atom
        from DFT.

    Raises
    ------
    InputError
        No prediction belongs to a crystal of the reference.
    """
    return reference.e_above_hull_ev_per_atom + _energies(reference, predicted) - reference.e_form_ev_per_atom


def _energies(reference: DiscoveryReference, predicted: Mapping[str, float]) -> Floats:
    """Predicted formation energies in eV/atom in the order of the reference, NaN for missing ones and outliers."""
    energies = np.array([predicted.get(material, np.nan) for material in reference.material_ids.tolist()], dtype=float)
    if not np.isfinite(energies).any():
        raise InputError("no prediction belongs to a crystal of the reference; check the material numbers")
    energies[np.abs(energies - reference.e_form_ev_per_atom) > OUTLIER_EV_PER_ATOM] = np.nan
    return energies


def _formation_energy_errors(reference: DiscoveryReference, predicted: Mapping[str, float]) -> dict[str, Any]:
    """Errors of all formation energies, rounded as hull distances are, whose errors are the same."""
    found = subset_metrics(reference.e_form_ev_per_atom.round(3), _energies(reference, predicted).round(3))
    return {name: found[name] for name in ("MAE", "RMSE", "R2", "missing_preds")}


_PREFIXES = {
    "full_test_set": "full", "unique_prototypes": "unique", "most_stable_10k": "top", "formation_energy": "e_form",
}  # fmt: skip


def flat_discovery_metrics(
    reference: DiscoveryReference, predicted: Mapping[str, float], with_intervals: bool = False
) -> tuple[dict[str, float | None], dict[str, tuple[float, float]]]:
    """Metrics and their intervals under the names of the table of published results, such as `unique_F1`.

    Parameters
    ----------
    reference
        DFT's values.
    predicted
        Formation energy in eV/atom by material.
    with_intervals
        Whether to resample the crystals.

    Returns
    -------
    tuple of dict
        Metrics, None where one is not defined, and 95 % bootstrap intervals of some of them. Both are empty if no
        crystal of the reference is predicted.
    """
    if predicted.keys().isdisjoint(reference.material_ids.tolist()):
        return {}, {}
    metrics: dict[str, float | None] = {}
    intervals: dict[str, tuple[float, float]] = {}
    found: dict[str, dict[str, Any]] = discovery_metrics(reference, predicted, with_intervals)
    for subset, values in found.items():
        for name, value in values.items():
            if name.endswith("_interval"):
                intervals[f"{_PREFIXES[subset]}_{name.removesuffix('_interval')}"] = value
            else:
                metrics[f"{_PREFIXES[subset]}_{name}"] = None if np.isnan(value) else value
    return metrics, intervals


def discovery_metrics(
    reference: DiscoveryReference, predicted: Mapping[str, float], intervals: bool = False
) -> dict[str, dict[str, Any]]:
    """Metrics of the leaderboard's three subsets.

    Two of the leaderboard's rules are not what one would expect. Everything is rounded to 3 decimals before it is
    compared with zero. DAF of the unique prototypes and of the most stable 10,000 divides by the prevalence of
    distances that were not rounded.

    Parameters
    ----------
    reference
        DFT's values.
    predicted
        Formation energy in eV/atom by material, with the corrections that the force field's energies need.
    intervals
        Also add "<metric>_interval" for F1, DAF, MAE and RMSE: 95 % bootstrap intervals over the crystals.

    Returns
    -------
    dict
        Metrics of "full_test_set", "unique_prototypes" and "most_stable_10k": see `subset_metrics`. Where the hull
        distance of some crystals is not known, they are left out of these, and "formation_energy" holds the errors of
        the formation energies of all crystals.
    """
    known = np.isfinite(reference.e_above_hull_ev_per_atom)
    if not known.all():
        part = reference.rows(known)
        some = not predicted.keys().isdisjoint(part.material_ids.tolist())
        errors = {"formation_energy": _formation_energy_errors(reference, predicted)}
        return (discovery_metrics(part, predicted, intervals) if some else {}) | errors
    true = reference.e_above_hull_ev_per_atom.round(3)
    distances = predicted_hull_distances(reference, predicted).round(3)
    unique = np.flatnonzero(reference.unique_prototype)
    unrounded = reference.e_above_hull_ev_per_atom[unique]
    prevalence = float((unrounded <= STABLE_BELOW_EV_PER_ATOM).mean()) if unique.size else float("nan")
    # NaN is sorted behind everything else.
    best = unique[np.argsort(distances[unique], kind="stable")][:MOST_STABLE]
    subsets = {
        "full_test_set": (np.arange(len(true)), None),
        "unique_prototypes": (unique, prevalence),
        "most_stable_10k": (best, prevalence),
    }
    found = {}
    for name, (rows, fraction) in subsets.items():
        found[name] = subset_metrics(true[rows], distances[rows], fraction)
        if intervals:
            found[name] |= _intervals(true[rows], distances[rows], fraction)
    return found


def _intervals(true: Floats, predicted: Floats, prevalence: float | None) -> dict[str, tuple[float, float]]:
    """95 % intervals of the main metrics of a subset.

    Classification is resampled by its four counts, which is the same as resampling the crystals and takes no time.
    """
    counts = Counts.of(true, predicted)
    four = np.array([counts.tp, counts.fp, counts.tn, counts.fn], dtype=float)
    dice = np.random.default_rng(0)
    rates = [
        Counts(*row).rates(prevalence)
        for row in dice.multinomial(int(four.sum()), four / four.sum(), size=1000).tolist()
    ]
    present = np.isfinite(predicted)
    error = predicted[present] - true[present]
    found = {}
    for name in ("F1", "DAF"):
        low, high = np.nanquantile([rate[name] for rate in rates], [0.025, 0.975])
        found[f"{name}_interval"] = (float(low), float(high))
    magnitude, square = np.abs(error), error**2
    found["MAE_interval"] = bootstrap_interval(lambda rows: float(magnitude[rows].mean()), len(error), 200)
    found["RMSE_interval"] = bootstrap_interval(lambda rows: float(np.sqrt(square[rows].mean())), len(error), 200)
    return found
