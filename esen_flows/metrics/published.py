"""Published results: the models of Matbench Discovery's leaderboard, July 2026."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from esen_flows.errors import InputError
from esen_flows.metrics.diatomics import AGAINST_REFERENCE, REFERENCE_FREE
from esen_flows.metrics.scores import combined_diatomics_score, combined_md_score, combined_performance_score

# Made by benchmarks/published_board.py from the leaderboard's model cards (MIT).
PUBLISHED_FILE = Path(__file__).with_name("published_2026_07.csv")
_TEXTS = ("model_key", "model_name", "training_sets", "targets", "added", "lifecycle")
_DISCOVERY = ("F1", "DAF", "Precision", "Recall", "Accuracy", "TP", "FP", "TN", "FN", "MAE", "RMSE", "R2")
_CONDUCTIVITY = ("κ_SRME", "κ_SRE", "κ_SRD", "κ_failure_rate", "imaginary_mode_rate", "spectrum_w1")
_GEOMETRY = ("rmsd", "n_sym_ops_mae", "symmetry_decrease", "symmetry_match", "symmetry_increase")
_MD = ("rdf_error", "adf_error", "vdos_error", "pressure_mae", "pressure_wasserstein", "pressure_error")
_MD_TRAINING_ERRORS = ("energy_rmse", "force_rmse")
COLUMNS = (
    *_TEXTS, "n_parameters",
    *(f"{subset}_{name}" for subset in ("unique", "full", "top") for name in _DISCOVERY),
    *(f"{name}_{tolerance}" for tolerance in ("1e-2", "1e-5") for name in _GEOMETRY),
    *_CONDUCTIVITY,
    *(f"diatomics_{name}" for name in (*REFERENCE_FREE, *AGAINST_REFERENCE, "run_time_sec", "excluded")),
    *(f"md_{name}" for name in (*_MD, *_MD_TRAINING_ERRORS, "run_time_sec")),
)  # fmt: skip
# A model is compliant if it was trained on these alone.
_COMPLIANT_SETS = frozenset({"MP 2022", "MPtrj", "MPF", "MP Graphs"})
# Their RMSD was never computed again when the leaderboard changed its scale, so that it is too small by a factor of
# about four, and their CPS is too large.
OLD_RMSD_SCALE = frozenset({"sevennet-0", "dpa3-v1-mptrj", "dpa3-v1-openlam"})


@dataclass(frozen=True)
class LeaderboardRow:
    """One model of the leaderboard.

    Attributes
    ----------
    key
        Key of the model.
    name
        Name of the model.
    compliant
        Whether the model was trained on data of the Materials Project of 2022 alone.
    conservative
        Whether forces are derivatives of the energy; None for a model without forces.
    superseded
        Whether the leaderboard lists another version in place of this one.
    values
        Metrics: the columns of `COLUMNS`, and "CPS", "CDS" and "CMDS". Those that are not known are left out.
    source
        "published", or the name of the campaign.
    added
        Date at which the leaderboard took it, YYYY-MM-DD; empty for a campaign.
    """

    key: str
    name: str
    compliant: bool
    conservative: bool | None
    superseded: bool
    values: dict[str, float]
    source: str = "published"
    added: str = ""


@cache
def published_rows() -> tuple[LeaderboardRow, ...]:
    """Models of the leaderboard, in alphabetical order of their keys.

    Returns
    -------
    tuple of LeaderboardRow
        One row for each model with published metrics.
    """
    with PUBLISHED_FILE.open(newline="") as file:
        return tuple(_row(columns) for columns in csv.DictReader(file))


def _row(columns: dict[str, str]) -> LeaderboardRow:
    values = {name: float(text) for name, text in columns.items() if name not in _TEXTS and text}
    targets = columns["targets"]
    return LeaderboardRow(
        key=columns["model_key"],
        name=columns["model_name"],
        compliant=set(columns["training_sets"].split("|")) <= _COMPLIANT_SETS,
        conservative="_G" in targets if "F" in targets else None,
        superseded=columns["lifecycle"] != "active",
        values=with_scores(values),
        added=columns["added"],
    )


def card_metrics(card: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of a leaderboard card under the names of `COLUMNS`.

    Parameters
    ----------
    card
        Card of a model or of a submission.

    Returns
    -------
    dict
        Metrics by name; those of tasks for which the card only says why there are none are left out.
    """
    metrics = card.get("metrics") or {}
    discovery, geometry = (_part(metrics, name) for name in ("discovery", "geo_opt"))
    found: dict[str, Any] = {}
    for subset, prefix in (("unique_prototypes", "unique"), ("full_test_set", "full"), ("most_stable_10k", "top")):
        found |= {f"{prefix}_{name}": value for name, value in _part(discovery, subset).items()}
    for tolerance in ("1e-2", "1e-5"):
        found |= {f"{name}_{tolerance}": value for name, value in _part(geometry, f"symprec={tolerance}").items()}
    found |= _part(_part(metrics, "phonons"), "kappa_103")
    for task in ("diatomics", "md"):
        values = _part(metrics, task)
        found |= {f"{task}_{name}": value for name, value in values.items()}
        if values:
            found[f"{task}_excluded"] = len(values.get("excluded_formula_reasons") or ())
    return {name: value for name, value in found.items() if name in COLUMNS}


def _part(metrics: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = metrics.get(name)
    return value if isinstance(value, Mapping) else {}


def with_scores(values: dict[str, float]) -> dict[str, float]:
    """Metrics with the combined scores that can be computed from them.

    Parameters
    ----------
    values
        Metrics by the names of `COLUMNS`.

    Returns
    -------
    dict
        The same with "CPS", "CDS" and "CMDS" where all their parts are there.
    """
    diatomics = {name.removeprefix("diatomics_"): value for name, value in values.items()}
    excluded = int(values.get("diatomics_excluded", 0))
    scores = {
        "CPS": combined_performance_score(values.get("unique_F1"), values.get("κ_SRME"), values.get("rmsd_1e-2")),
        "CDS": combined_diatomics_score(diatomics | {"excluded_formula_reasons": dict.fromkeys(range(excluded))}),
        "CMDS": combined_md_score(
            {name.removeprefix("md_"): value for name, value in values.items() if name.startswith("md_")}
        ),
    }
    return values | {name: score for name, score in scores.items() if score is not None}


def ranked(rows: Iterable[LeaderboardRow], by: str) -> list[LeaderboardRow]:
    """Rows in the order of one metric, the best first; rows without it come last.

    Parameters
    ----------
    rows
        Rows of the leaderboard.
    by
        Name of the metric.

    Returns
    -------
    list of LeaderboardRow
        The sorted rows.

    Raises
    ------
    InputError
        No row has the metric.
    """
    known = list(rows)
    if not any(by in row.values for row in known):
        names = sorted({name for row in known for name in row.values})
        raise InputError(f"no model has the metric {by!r}; known are {', '.join(names)}")
    sign = -1 if by in LARGER_IS_BETTER else 1
    return sorted(known, key=lambda row: (by not in row.values, sign * row.values.get(by, 0.0), row.key))


LARGER_IS_BETTER = frozenset(
    {"CPS", "CDS", "CMDS", "n_parameters", "symmetry_match_1e-2", "symmetry_match_1e-5"}
    | {
        f"{subset}_{name}"
        for subset in ("unique", "full", "top")
        for name in ("F1", "DAF", "Precision", "Recall", "Accuracy", "R2", "TP", "TN")
    }
)
