"""The figure and the table of `displacement_parity.py`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from rich.console import Console
from rich.table import Table

# Wong, Nat. Methods 8, 441 (2011)
COLOURS = {
    "esen_silicon": "#0072B2",
    "sevennet_l3i5": "#D55E00",
    "sevennet_0": "#009E73",
    "chgnet": "#CC79A7",
    "esen_nano": "#E69F00",
}
LABELS = {
    "esen_silicon": "esen_silicon",
    "sevennet_l3i5": "SevenNet-l3i5",
    "sevennet_0": "SevenNet-0",
    "esen_nano": "esen_nano",
    "chgnet": "CHGNet 0.3.0",
}
TICKS = (0.003, 0.005, 0.01, 0.02, 0.03, 0.05)  # Angstrom
KAPPA_TICKS = [m * 10.0**e for e in range(-5, 4) for m in (1, 2, 5)]
FINE_TICKS = [m * 10.0**e for e in range(-5, 4) for m in range(1, 10)]
Series = dict[float, float]  # displacement (Angstrom) -> kappa (W/m/K)


def series(points: list[dict[str, Any]], **identity: Any) -> Series:
    """kappa against displacement of the points with these fields; points without a kappa are left out."""
    chosen = [p for p in points if all(p[k] == v for k, v in identity.items()) and p["kappa_w_per_m_k"] is not None]
    return {p["displacement_angstrom"]: p["kappa_w_per_m_k"] for p in sorted(chosen, key=_displacement)}


def _displacement(point: dict[str, Any]) -> float:
    return float(point["displacement_angstrom"])


def panels(points: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(crystal, cell) of every panel, in the order in which they were measured."""
    return list(dict.fromkeys((p["crystal"], p["cell"]) for p in points))


def best(points: list[dict[str, Any]], **identity: Any) -> Series:
    """The average with the inverse; for a force field that is its own average, what it is."""
    return series(points, parity="average", **identity) or series(points, parity="as_is", **identity)


def draw(points: list[dict[str, Any]], path: Path) -> None:
    """One panel per crystal and cell: float64 as lines (solid: averaged; dashed: as is), float32 as circles."""
    shown = panels(points)
    figure, axes = plt.subplots(1, len(shown), figsize=(3.2 * len(shown), 4.4), constrained_layout=True, squeeze=False)
    circle: dict[str, Any] = {"ls": "", "marker": "o", "ms": 4.5}
    for axis, (crystal, cell) in zip(axes[0], shown, strict=True):
        for model, colour in COLOURS.items():
            here: dict[str, Any] = {"crystal": crystal, "cell": cell, "model": model}
            _line(axis, best(points, dtype="float64", **here), color=colour, lw=1.6)
            _line(axis, series(points, dtype="float64", parity="as_is", **here), color=colour, lw=1.2, ls="--")
            _line(axis, series(points, dtype="float32", parity="as_is", **here), color=colour, mfc="white", **circle)
            _line(axis, series(points, dtype="float32", parity="average", **here), color=colour, **circle)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks(TICKS, [f"{x:g}" for x in TICKS])
        axis.minorticks_off()
        low, high = axis.get_ylim()
        ticks = [k for k in (KAPPA_TICKS if high > 5 * low else FINE_TICKS) if low <= k <= high]
        axis.set_yticks(ticks, [f"{k:g}" for k in ticks])
        axis.set_title(f"{crystal}, fc3 of {64 if cell == 'large' else 16} atoms", fontsize=9)
        axis.set_xlabel("displacement (Å)")
    axes[0][0].set_ylabel("kappa, RTA, 300 K (W/m/K)")
    handles = [Line2D([], [], color=colour, lw=1.6, label=LABELS[model]) for model, colour in COLOURS.items()]
    handles += [
        Line2D([], [], color="0.3", lw=1.6, label="float64, averaged"),
        Line2D([], [], color="0.3", lw=1.2, ls="--", label="float64, as is"),
        Line2D([], [], color="0.3", label="float32, averaged", **circle),
        Line2D([], [], color="0.3", mfc="white", label="float32, as is", **circle),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)
    figure.savefig(path.with_suffix(".svg"))


def _line(axis: Axes, values: Series, **style: Any) -> None:
    if values:
        axis.plot(list(values), list(values.values()), **style)


def largest(one: Series, other: Series) -> str:
    """The largest relative difference where both have a point, in per cent, and at which displacement."""
    differences = {d: 100 * (one[d] / other[d] - 1) for d in one if d in other}
    if not differences:
        return "-"
    where = max(differences, key=lambda d: abs(differences[d]))
    return f"{differences[where]:+.2f} % at {where:g}"


def spread(values: Series, accept: Callable[[float], bool]) -> str:
    """Highest over lowest kappa among accepted displacements."""
    chosen = [kappa for displacement, kappa in values.items() if accept(displacement)]
    return f"{max(chosen) / min(chosen):.3f}" if len(chosen) > 1 else "-"


def tell(points: list[dict[str, Any]]) -> None:
    """A table: what parity, float32 and the force field itself do to kappa."""
    table = Table(title="kappa against displacement: what it is due to (displacements in Å)")
    for column in (
        "crystal", "cell", "model", "parity: as is over average", "float32 over float64, averaged",
        "float32 over float64, as is", "max/min, averaged, all", "max/min, averaged, 0.005-0.03",
    ):  # fmt: skip
        table.add_column(column)
    for crystal, cell in panels(points):
        for model in COLOURS:
            here: dict[str, Any] = {"crystal": crystal, "cell": cell, "model": model}
            if not series(points, **here):
                continue
            exact = best(points, dtype="float64", **here)
            as_is = series(points, dtype="float64", parity="as_is", **here)
            single, single_as_is = (
                best(points, dtype="float32", **here),
                series(points, dtype="float32", parity="as_is", **here),
            )
            shown = exact or single
            table.add_row(
                crystal,
                cell,
                LABELS[model],
                largest(as_is or single_as_is, shown),
                largest(single, exact),
                largest(single_as_is, as_is),
                spread(shown, lambda d: True),
                spread(shown, lambda d: 0.005 <= d <= 0.03),
            )
    Console(width=170).print(table)


def earlier(folder: Path) -> list[dict[str, Any]]:
    """Silicon's points of `silicon_kappa.py`: the "large" cell, but second order from 216 atoms."""
    points = []
    for model in COLOURS:
        path = folder / f"silicon_kappa_{model}.json"
        if path.exists():
            content = json.loads(path.read_text())
            here = {"model": model, "dtype": content["dtype"], "crystal": "Si", "cell": "large"}
            points += [{**here, **row, "kappa_w_per_m_k": row["rta"]} for row in content["kappa_300k_w_per_m_k"]]
    return points


def main(path: Path) -> None:
    """Draw and tell what a result file holds, with what was measured before by `silicon_kappa.py`."""
    measured = json.loads(path.read_text())["points"]
    points = [*earlier(path.parent), *measured]  # of two points in the same place, the new one is drawn
    draw(points, path.with_suffix(".png"))
    tell(points)
