"""The plot of `esen_speed`: seconds of a force call against atoms, and what each side takes of the floor."""

from pathlib import Path
from typing import Any

COLORS = {"esen_flows": "C0", "fairchem-core 1.10.0": "C3", "fairchem-core 2.24.0": "C1", "matrix products": "0.6"}


def plot(document: dict[str, Any], path: Path) -> None:
    """Write the PNG; on a machine without matplotlib nothing is drawn."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        return
    matplotlib.use("agg")
    from matplotlib import pyplot

    rows = sorted(document["rows"], key=lambda row: (row["model"], row["structure"], row["atoms"], row["dtype"]))
    on_cpu = document["device"] == "cpu"
    quantity = "cpu_seconds" if on_cpu else "seconds"
    figure, axis = pyplot.subplots(figsize=(9, 1.5 + 0.55 * len(rows)), layout="constrained")
    labels = []
    for position, row in enumerate(rows):
        values = {"matrix products": row[f"floor_{quantity}"], "esen_flows": row[quantity]}
        values |= {name: value[quantity] for name, value in row["reference"].items() if quantity in value}
        for place, (name, value) in enumerate(values.items()):
            height = position + 0.2 * (place - 1.5)
            axis.barh(height, value, height=0.2, color=COLORS[name], label=name)
            axis.annotate(f" {value:.2g}", (value, height), va="center", fontsize=7)
        memory = "" if row["memory_bytes"] is None else ", nothing twice"
        labels.append(f"{row['model']} {row['structure']} {row['atoms']}\n{row['dtype']}, {row['allocator']}{memory}")
    axis.set_yticks(range(len(rows)), labels, fontsize=8)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.margins(x=0.1)
    what = f"CPU seconds ({document['threads']} threads)" if on_cpu else f"seconds ({document['device']})"
    axis.set_xlabel(f"{what} of energy + forces + stress, medians")
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    axis.legend(handles.values(), handles.keys(), fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
