"""One look for every figure: palette, fonts, titles, and files that are written whole or not at all.

Rules for all figures, looked at with 5 and with 5,000 points:

- Axes name their quantity in words and its unit in brackets; units of fields come from `field_text`, those of
  frequencies from `axes.frequency_unit`. Logarithmic axes have plain numbers (`axes.logarithmic`).
- The title, at the left, names what all curves share; a legend names what differs between them (`labels_of`).
  Legends are opaque, so that a line behind one does not cross its words, and stand where the data leave room:
  `axes.room_above` makes some, bands have them below the axes.
- Few points are drawn one by one and large; of many, distributions are histograms, pairs are densities, and clouds of
  points are pixels also in SVG files, which stay under 1 MB. Medians over a cloud have the colour of their points and a
  white edge (`axes.over_points`).
- Colours are those of `PALETTE`; where they begin again, the kind of line changes. Reference lines are grey.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from esen_flows.errors import InputError
from esen_flows.files import written_whole
from esen_flows.schemas.documents import Kind, ResultDocument

# The palette of Okabe and Ito (https://jfly.uni-koeln.de/color/), distinguishable with any colour vision. Its yellow is
# left out, because it is too faint for a line on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK = "#222222"
FAINT = "#9A9A9A"
KAPPA_UNIT = r"(W m$^{-1}$ K$^{-1}$)"

_UNITS = {
    "ev_per_angstrom": "eV/Å",
    "angstrom": "Å",
    "mev_per_atom_ps": "meV/atom/ps",
    "mev_per_atom": "meV/atom",
    "ev_per_atom": "eV/atom",
    "w_per_m_k": "W m$^{-1}$ K$^{-1}$",
    "angstrom2": "Å$^2$",
    "angstrom3": "Å$^3$",
    "gpa": "GPa",
    "ev": "eV",
    "thz": "THz",
    "kelvin": "K",
    "ps": "ps",
    "micrometre": "µm",
}
# Words for names of fields that are abbreviations.
_WORDS = {
    "dtype": "precision",
    "fmax": "largest force",
    "fc2 min length": "least length of fc2 supercell",
    "fc3 min length": "least length of fc3 supercell",
}
_MOST_SETTINGS = 3  # in a legend entry
_MOST_PARTS = 6  # of a list that is written out

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
    "legend.frameon": True,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "legend.borderpad": 0.2,
    "legend.fontsize": 9,
    "legend.title_fontsize": 9,
    "svg.fonttype": "none",
    # A fixed salt for identifiers makes the files of equal documents equal.
    "svg.hashsalt": "esen_flows",
}


@contextmanager
def new_figure(width_inch: float = 5.0, height_inch: float = 3.6) -> Iterator[Figure]:
    """An empty figure in the common style, without a window and without pyplot's global state.

    Parameters
    ----------
    width_inch, height_inch
        Size in inches.

    Yields
    ------
    Figure
        Figure to draw into and save inside the `with` block.
    """
    # Starting from the library's defaults keeps a user's own matplotlibrc (with usetex, say) without effect.
    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=(width_inch, height_inch), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def origin_of(document: ResultDocument) -> str:
    """Kind and key of a result, for the metadata of its figures.

    Parameters
    ----------
    document
        Result that is drawn.

    Returns
    -------
    str
        Kind and key.
    """
    return f"{document.kind} {document.key}"


def save(figure: Figure, path: str | Path, origin: str) -> Path:
    """Write a figure as PNG and SVG side by side, each file whole or not at all.

    Parameters
    ----------
    figure
        Figure to write.
    path
        Path of the PNG file, with or without `.png`; its folder is made.
    origin
        Source of the data, for the metadata of both files.

    Returns
    -------
    Path
        Path of the PNG file, which is written last; the SVG file stands beside it.

    Raises
    ------
    OSError
        The folder cannot be made or written to, or the disk is full.
    """
    path = Path(path)
    stem = path.name.removesuffix(".png").removesuffix(".svg")
    path.parent.mkdir(parents=True, exist_ok=True)
    origin = f"esen_flows {origin}"
    png = path.parent / f"{stem}.png"
    metadata: dict[Path, dict[str, Any]] = {
        path.parent / f"{stem}.svg": {"Identifier": origin, "Date": None},  # a date would make equal figures differ
        png: {"Description": origin},
    }
    for file, facts in metadata.items():
        with written_whole(file) as temporary:
            figure.savefig(temporary, metadata=facts)
    return png


def output_of(document: ResultDocument, kind: Kind) -> dict[str, Any]:
    """The output of a finished result of one kind.

    Parameters
    ----------
    document
        Result to draw.
    kind
        Kind of result that the figure shows.

    Returns
    -------
    dict[str, Any]
        Values and arrays by field name.

    Raises
    ------
    InputError
        The result is of another kind, or its calculation failed.
    """
    if document.kind != kind:
        raise InputError(f"this figure shows a {kind!r} document, got {document.kind!r} ({document.key[:12]})")
    if document.output is None:
        reason = document.failure.message if document.failure else "it holds no output"
        raise InputError(f"nothing to plot: {kind} {document.key[:12]} of {document.subject_name} failed ({reason})")
    return document.output


def formula_text(formula: str) -> str:
    """A formula with its numbers as subscripts.

    Parameters
    ----------
    formula
        Chemical formula.

    Returns
    -------
    str
        Text for matplotlib.

    Examples
    --------
    >>> formula_text("Si2O4")
    'Si$_{2}$O$_{4}$'
    """
    return re.sub(r"(\d+)", r"$_{\1}$", formula)


def field_text(field: str) -> str:
    """A field's name as the label of an axis or a legend: in words, with its unit in brackets.

    Parameters
    ----------
    field
        Name of a field of a protocol, with or without the names of the protocols that it is nested in.

    Returns
    -------
    str
        Text for matplotlib.

    Examples
    --------
    >>> field_text("displacement.displacement_angstrom"), field_text("relax.fmax_ev_per_angstrom"), field_text("mesh")
    ('Displacement (Å)', 'Relaxation: largest force (eV/Å)', 'Mesh')
    """
    words, unit = _words_and_unit(field)
    words = words[:1].upper() + words[1:]
    return f"{words} ({unit})" if unit else words


def _words_and_unit(field: str) -> tuple[str, str]:
    outer, _, name = field.rpartition(".")
    unit = next((unit for unit in _UNITS if name.endswith(f"_{unit}")), "")
    words = name.removesuffix(f"_{unit}").replace("_", " ")
    words = _WORDS.get(words, words)
    return (f"relaxation: {words}" if outer.startswith("relax") else words), _UNITS.get(unit, "")


def labels_of(documents: Sequence[ResultDocument]) -> list[str]:
    """Legend entries of results: their force fields, and the settings in which they differ.

    Parameters
    ----------
    documents
        Results that are drawn.

    Returns
    -------
    list[str]
        One entry per result. Entries are equal only if nothing that is shown differs, as for two structures; the first
        digits of the key then tell them apart.
    """
    facts = [_facts(document) for document in documents]
    model = shared([document.model_label for document in documents])
    names = dict.fromkeys(name for each in facts for name in each)
    differing = [name for name in names if len({each.get(name) for each in facts}) > 1]
    labels = []
    for document, each in zip(documents, facts, strict=True):
        settings = [_setting(name, each.get(name)) for name in differing[:_MOST_SETTINGS]]
        # The title names a force field that all of them have.
        labels.append(", ".join(settings if model and settings else [document.model_label, *settings]))
    return [
        f"{label} ({document.key[:8]})" if labels.count(label) > 1 else label
        for label, document in zip(labels, documents, strict=True)
    ]


def _setting(field: str, value: str | None) -> str:
    words, unit = _words_and_unit(field)
    return f"{words} {value} {unit}".rstrip() if value is not None else f"no {words}"


def _facts(document: ResultDocument) -> dict[str, str]:
    """What a result was computed with, apart from the force field: fields of protocol and precision, as text."""
    protocol = {**document.protocol, **{name: document.numeric.get(name) for name in ("dtype", "tf32")}}
    return {name: _value_text(name, value) for name, value in _flat(protocol) if value is not None}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and name != "born":
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _value_text(name: str, value: Any) -> str:
    if name.endswith("born"):
        return "given"
    if isinstance(value, list | tuple):
        if name.endswith("supercell") and all(value[i][j] == 0 for i in range(3) for j in range(3) if i != j):
            value = [value[i][i] for i in range(3)]
        parts = [_value_text(name, part) for part in value]
        if len(parts) > _MOST_PARTS:
            return f"{parts[0]} to {parts[-1]}"
        return "×".join(parts) if name.endswith(("mesh", "supercell")) else " ".join(parts)
    return f"{value:g}" if isinstance(value, float) else str(value)


def mesh_text(output: Mapping[str, Any]) -> str:
    """The mesh of q-points of a result, for a title.

    Parameters
    ----------
    output
        Output with a mesh.

    Returns
    -------
    str
        Text such as "mesh 11×11×11".
    """
    return "mesh " + "×".join(str(n) for n in output["mesh"])


def shared(values: Sequence[Any]) -> Any:
    """The value that all results in a figure have.

    Parameters
    ----------
    values
        One value per result.

    Returns
    -------
    Any
        The value, or None where the results differ.
    """
    return values[0] if all(value == values[0] for value in values) else None


def set_title(axes: Axes, documents: Sequence[ResultDocument], *remarks: str | None) -> None:
    """Set the title to what all results of a figure share.

    Parameters
    ----------
    axes
        Axes to change.
    documents
        Results that are drawn.
    *remarks
        Further parts of the title; None for one in which the results differ, which the legend names.
    """
    model = shared([document.model_label for document in documents])
    parts = [formula_text(documents[0].subject_name), model, *remarks]
    axes.set_title("  ·  ".join(part for part in parts if part))


def labelled(
    documents: Sequence[ResultDocument], outputs: Sequence[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Outputs of several results with their legend entries and colours.

    Parameters
    ----------
    documents
        Results that are drawn in one figure.
    outputs
        Their outputs.

    Yields
    ------
    tuple[dict[str, Any], str, str]
        Output, legend entry and colour.
    """
    for i, (output, label) in enumerate(zip(outputs, labels_of(documents), strict=True)):
        yield output, label, PALETTE[i % len(PALETTE)]
