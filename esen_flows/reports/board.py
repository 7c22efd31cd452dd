"""Metrics of a benchmark beside the published ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from esen_flows.campaigns.judged_models import JudgedModel
from esen_flows.metrics.paper_tables import counterpart
from esen_flows.metrics.published import (
    COLUMNS,
    LARGER_IS_BETTER,
    LeaderboardRow,
    published_rows,
    with_scores,
)
from esen_flows.reports.page import Axis, Cell, Chart, Column, Part, Trace, compact_table

# Metrics that get a chart of their own.
_CHARTED = ("CPS", "unique_F1", "κ_SRME", "rmsd_1e-2", "CDS", "CMDS")
_MOST_CHARTS = 3
# A signed deviation, the best value of which is 0.
_SIGNED = frozenset({"κ_SRD"})
_COUNTS = ("_TP", "_FP", "_TN", "_FN")
_NOT_METRICS = ("n_parameters", "diatomics_excluded", "diatomics_run_time_sec", "md_run_time_sec")


@dataclass(frozen=True)
class BoardEntry:
    """Metrics of one force field that are put beside the published ones.

    Attributes
    ----------
    name
        Name of the force field, or of the submission.
    values
        Metrics as the leaderboard counts: what is missing is a failure.
    done
        Metrics over what is done; empty if that is the same, or not known.
    intervals
        Ends of 95 % intervals of some of those over what is done.
    covered
        How many materials of how many are done, in words; empty if all of them are. Such an entry gets no rank.
    published_as
        Name by which its published counterpart is looked for.
    """

    name: str
    values: Mapping[str, Any]
    done: Mapping[str, Any] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    covered: str = ""
    published_as: str = ""


def judged_entry(judged: JudgedModel) -> BoardEntry:
    """The entry of a force field in a campaign with a benchmark.

    Parameters
    ----------
    judged
        Its metrics.

    Returns
    -------
    BoardEntry
        The entry.
    """
    is_whole = judged.n_done == judged.n_materials
    covered = "" if is_whole else f"{judged.n_done} of {judged.n_materials} materials"
    return BoardEntry(judged.model, judged.with_missing_as_failed, judged.done, judged.intervals, covered, judged.model)


def board_parts(entries: Sequence[BoardEntry]) -> list[Part]:
    """A table of metrics beside the published ones, and charts of the most important ones.

    Parameters
    ----------
    entries
        Force fields or submissions.

    Returns
    -------
    list of Part
        Empty if there is no metric.
    """
    published = [row for row in published_rows() if not row.superseded]
    known = [(entry, with_scores(_numbers(entry.values))) for entry in entries]
    names = [name for name in ("CPS", "CDS", "CMDS", *COLUMNS) if name not in _NOT_METRICS]
    # Counts of crystals are not comparable between sets of different sizes; the rates are.
    names = [name for name in names if not name.endswith(_COUNTS) and any(name in row.values for row in published)]
    rows = [
        _row(entry, values, name, published)
        for name in names
        for entry, values in known
        if values.get(name) is not None
    ]
    if not rows:
        return []
    remarks = [f"{entry.name}: {entry.covered}; it has no rank" for entry in entries if entry.covered]
    note = "Published: Matbench Discovery, July 2026, without superseded models."
    is_counted = any(entry.done for entry in entries)
    if is_counted:
        note += " As the board counts, a missing material is a failure."
    columns = (
        Column("metric"), Column("unit"), Column("better"), Column("force field"),
        Column("over what is done", "", ".4g"), Column("95 % interval"),
        Column("as the board counts" if is_counted else "value", "", ".4g"),
        Column("rank"), Column("same model, published", "", ".4g"), Column("best published", "", ".4g"),
        Column("best model"), Column("median published", "", ".4g"),
    )  # fmt: skip
    table = compact_table(columns, rows, note=" ".join([note, *(f"{remark}." for remark in remarks)]))
    charted = [name for name in _CHARTED if any(name in values for _, values in known)][:_MOST_CHARTS]
    return [*(_chart(name, known, published) for name in charted), table]


def metric_unit(name: str) -> str:
    """Unit of a metric.

    Parameters
    ----------
    name
        Name of the metric, one of `metrics.published.COLUMNS`.

    Returns
    -------
    str
        Its unit; empty for rates and scores.

    Examples
    --------
    >>> metric_unit("unique_MAE"), metric_unit("unique_F1"), metric_unit("spectrum_w1")
    ('eV/atom', '', 'THz')
    """
    if name.startswith(("unique_", "full_", "top_")):
        return "eV/atom" if name.endswith(("_MAE", "_RMSE")) else ""
    if name.startswith("rmsd_"):
        return "(V/atom)^⅓"
    return _UNITS.get(name, "")


_UNITS = {
    "spectrum_w1": "THz", "md_pressure_mae": "GPa", "md_pressure_wasserstein": "GPa", "md_energy_rmse": "eV/atom",
    "md_force_rmse": "eV/Å", "diatomics_energy_jump": "eV", "diatomics_force_jump": "eV/Å",
    "diatomics_force_total_variation": "eV/Å", "diatomics_pbe_energy_mae": "eV", "diatomics_pbe_force_mae": "eV/Å",
    "diatomics_pbe_bond_length_error": "Å", "diatomics_pbe_well_depth_error": "eV",
    "diatomics_pbe_vib_freq_error": "1/cm", "diatomics_pbe_wall_dist_mae": "Å",
}  # fmt: skip


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}


def _row(
    entry: BoardEntry, values: Mapping[str, float], name: str, published: Sequence[LeaderboardRow]
) -> tuple[Cell, ...]:
    others = _ranked(name, published)
    theirs = [row.values[name] for row in others]
    low, high = entry.intervals.get(name, (None, None))
    same = counterpart(entry.published_as, published) if entry.published_as else None
    return (
        name,
        metric_unit(name),
        _direction(name),
        entry.name,
        entry.done.get(name),
        "" if low is None else f"{low:.4g} to {high:.4g}",
        values[name],
        "" if entry.covered else f"{_rank(values[name], name, theirs)} of {len(theirs) + 1}",
        None if same is None else same.values.get(name),
        theirs[0],
        others[0].name,
        median(theirs),
    )


def _merit(name: str, value: float) -> float:
    """A number that is smaller for a better value."""
    return abs(value) if name in _SIGNED else -value if name in LARGER_IS_BETTER else value


def _direction(name: str) -> str:
    return "nearer to 0" if name in _SIGNED else "higher" if name in LARGER_IS_BETTER else "lower"


def _ranked(name: str, published: Sequence[LeaderboardRow]) -> list[LeaderboardRow]:
    """Published models that have the metric, the best one first."""
    known = [row for row in published if name in row.values]
    return sorted(known, key=lambda row: (_merit(name, row.values[name]), row.key))


def _rank(value: float, name: str, others: Sequence[float]) -> int:
    """Place of a value among others, 1 for the best."""
    return 1 + sum(_merit(name, other) < _merit(name, value) for other in others)


def _chart(
    name: str, known: Sequence[tuple[BoardEntry, Mapping[str, float]]], published: Sequence[LeaderboardRow]
) -> Chart:
    others = _ranked(name, published)
    theirs = [row.values[name] for row in others]
    places: list[float | None] = [float(place) for place in range(1, len(others) + 1)]
    traces = [Trace("published", places, theirs, labels=[row.name for row in others], colour=5)]
    for number, (entry, values) in enumerate(known):
        if name in values:
            place = _rank(values[name], name, theirs) - 0.5  # between two published ones
            label = f"{entry.name} · {entry.covered}" if entry.covered else entry.name
            traces.append(Trace(entry.name, [place], [values[name]], labels=[label], colour=number, emphasised=True))
    axes = Axis("place among published models"), Axis(name, metric_unit(name))
    return Chart(f"{name} beside the published models", *axes, traces, f"{_direction(name)} is better")
