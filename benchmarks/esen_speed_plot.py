"""The plot of `esen_speed`: a force call in units of its bare matrix products."""

from pathlib import Path
from typing import Any

COLORS = {"esen_flows": "C0", "fairchem-core 1.10.0": "C3", "fairchem-core 2.24.0": "C1"}


def plot(document: dict[str, Any], path: Path) -> None:
    """Write the PNG; on a machine without matplotlib nothing is drawn."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        return
    matplotlib.use("agg")
    from matplotlib import pyplot

    rows = sorted(document["rows"], key=lambda row: (row["model"], row["structure"], row["dtype"], row["atoms"]))
    quantity = "cpu_seconds" if document["device"] == "cpu" else "seconds"
    figure, axis = pyplot.subplots(figsize=(9, 1.5 + 0.6 * len(rows)), layout="constrained")
    for position, row in enumerate(rows):
        answers = {"esen_flows": row, **row["reference"]}
        for place, (name, answer) in enumerate(answers.items()):
            if quantity not in answer:
                continue
            ratio = answer[quantity] / answer[f"floor_{quantity}"]  # each against the floor in its own process
            height = position + 0.27 * (place - 1)
            axis.barh(height, ratio, height=0.27, color=COLORS[name], label=name)
            said = f" {ratio:.2f} ({answer['seconds']:.2g} s, {answer['peak_mb'] / 1000:.1f} GB)"
            axis.annotate(said, (ratio, height), va="center", fontsize=7)
    axis.axvline(1.0, color="0.3", linewidth=1)
    axis.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.3)
    what = f"CPU time, {document['threads']} threads" if document["device"] == "cpu" else f"time, {document['device']}"
    axis.set_xlabel(
        f"{what}, over that of the bare matrix products\n(energy + forces + stress; wall time, peak memory)"
    )
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    axis.legend(handles.values(), handles.keys(), fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _label(row: dict[str, Any]) -> str:
    memory = "" if row["memory_bytes"] is None else f", planned with {row['memory_bytes'] / 1e9:g} GB"
    return f"{row['model']} {row['structure']} {row['atoms']}\n{row['dtype']}, {row['allocator']} allocator{memory}"
