"""The checks of audits against their limits, and errors of finite differences against the displacement."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from esen_flows.plots.style import FAINT, INK, labelled, new_figure, origin_of, output_of, save
from esen_flows.schemas.audit import AuditOutput
from esen_flows.schemas.audit_measures import MEASURES
from esen_flows.schemas.documents import ResultDocument

_SMALLEST, _LARGEST = 1e-8, 1e10  # of the axis; numbers beyond are drawn at its ends
_STYLES = {"float64": "-", "float32": "--"}


def plot_audit(document: ResultDocument, path: str | Path, others: Sequence[ResultDocument] = ()) -> Path:
    """Values of the checks over their limits (left), and errors of frequencies against the displacement (right).

    Parameters
    ----------
    document
        Finished audit.
    path
        PNG file to write; an SVG file is written beside it.
    others
        Audits of other force fields, or in another precision, to draw in the same figure.

    Returns
    -------
    Path
        Path of the PNG file.

    Raises
    ------
    InputError
        A document is not a finished audit.
    """
    documents = [document, *others]
    outputs = [output_of(each, "audit") for each in documents]
    judged = {check["measure"] for output in outputs for check in output["checks"]}
    names = [name for name in MEASURES if name in judged]
    with new_figure(10.5, 1.4 + 0.2 * len(names)) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        for output, label, colour in labelled(documents, outputs):
            audit = AuditOutput.model_validate(output)
            points = [(_share(check), names.index(str(check["measure"])), check["passed"]) for check in audit.checks]
            for passed, marker in ((True, "o"), (False, "X")):
                shown = [(x, y) for x, y, good in points if bool(good) is passed]
                if shown:
                    left.plot(*zip(*shown, strict=True), marker, color=colour, markersize=5, alpha=0.8)
            displacements = np.array(audit.displacements_angstrom)
            order = np.argsort(displacements)
            for dtype, errors in sorted(audit.frequency_errors.items(), reverse=True):
                curve = np.array(errors)[order]
                right.plot(displacements[order], curve, _STYLES[dtype], color=colour, marker=".", markersize=4)
            right.plot([], [], "o", color=colour, label=label)
        left.axvline(1.0, color=INK, linewidth=0.8)
        left.set(xscale="log", xlim=(_SMALLEST / 3, _LARGEST * 3), ylim=(len(names) - 0.5, -0.5))
        left.set(xlabel="value / limit (circle: passed, cross: failed)")
        left.set_yticks(range(len(names)), [MEASURES[name].title for name in names], fontsize=7)
        left.grid(axis="y", color=FAINT, linewidth=0.3)
        right.set(xscale="log", yscale="log", xlabel="Displacement (Å)")
        right.set(ylabel="Largest error of a frequency / highest frequency")
        for dtype, style in _STYLES.items():
            right.plot([], [], style, color=FAINT, label=dtype)
        right.legend(loc="lower right")
        left.set_title(f"Audit of {document.model_label}" if not others else f"Audits of {len(documents)} force fields")
        return save(figure, path, origin_of(document))


def _share(check: dict[str, float | str | bool | None]) -> float:
    """Value over limit, inside of the axis."""
    value, limit = float(check["value"] or 0.0), float(check["limit"] or 0.0)
    share = value / limit if limit > 0 else (_LARGEST if value > 0 else _SMALLEST)
    return float(np.clip(share, _SMALLEST, _LARGEST))
