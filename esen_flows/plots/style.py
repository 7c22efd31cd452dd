"""One look for every figure: palette, fonts, titles, and files that are either whole or not there."""

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from esen_flows.errors import InputError
from esen_flows.schemas.documents import Kind, ResultDocument

# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/), distinguishable with any colour vision; yellow left out,
# because it is too faint for a line on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK = "#222222"
FAINT = "#9A9A9A"

_STYLE: dict[Any, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.title_fontsize": 9,
    "svg.fonttype": "none",
    # Equal documents give equal files.
    "svg.hashsalt": "esen_flows",
}


@contextmanager
def new_figure(width_inch: float = 5.0, height_inch: float = 3.6) -> Iterator[Figure]:
    """An empty figure in the house style, without a window and without pyplot's global state."""
    # From the library's defaults, so that a user's own matplotlibrc (usetex, say) changes nothing.
    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=(width_inch, height_inch), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def origin_of(document: ResultDocument) -> str:
    """What a figure of a document says in its metadata: kind and key."""
    return f"{document.kind} {document.key}"


def save(figure: Figure, path: str | Path, origin: str) -> Path:
    """Write the figure as PNG and SVG side by side; a reader never sees half a file.

    Parameters
    ----------
    path
        where to, with or without `.png`; its folder is made.
    origin
        what is shown, for the metadata of both files.

    Returns
    -------
    Path
        Path of the PNG file; the SVG file stands beside it.
    """
    path = Path(path)
    stem = path.name.removesuffix(".png").removesuffix(".svg")
    path.parent.mkdir(parents=True, exist_ok=True)
    origin = f"esen_flows {origin}"
    png, svg = path.parent / f"{stem}.png", path.parent / f"{stem}.svg"
    _save_one(figure, svg, {"Identifier": origin, "Date": None})
    _save_one(figure, png, {"Description": origin})
    return png


def _save_one(figure: Figure, path: Path, metadata: dict[str, Any]) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as stream:
        temporary = Path(stream.name)
        try:
            figure.savefig(stream, format=path.suffix[1:], metadata=metadata)
        except BaseException:
            temporary.unlink()
            raise
    # NamedTemporaryFile makes owner-only files; a figure is as readable as any file that its user writes.
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    temporary.replace(path)


def output_of(document: ResultDocument, kind: Kind) -> dict[str, Any]:
    """The output of a finished document of one kind.

    Raises
    ------
    InputError
        another kind of document, or one of a calculation that failed.
    """
    if document.kind != kind:
        raise InputError(f"this figure shows a {kind!r} document, got {document.kind!r} ({document.key[:12]})")
    if document.output is None:
        reason = document.failure.message if document.failure else "it holds no output"
        raise InputError(f"nothing to plot: {kind} {document.key[:12]} of {document.formula} failed ({reason})")
    return document.output


def formula_text(formula: str) -> str:
    """A formula with its numbers as subscripts: "Si2O4" as "Si$_2$O$_4$"."""
    return re.sub(r"(\d+)", r"$_{\1}$", formula)


def set_title(axes: Axes, document: ResultDocument, *remarks: str) -> None:
    """What the figure is of: formula, force field, remarks."""
    axes.set_title("  ·  ".join([formula_text(document.formula), document.model_label, *remarks]))


def labels_of(documents: Sequence[ResultDocument]) -> list[str]:
    """A legend entry per document: the force field's label, with the key's first digits where labels repeat."""
    labels = [document.model_label for document in documents]
    return [
        f"{label} ({document.key[:8]})" if labels.count(label) > 1 else label
        for label, document in zip(labels, documents, strict=True)
    ]
