"""The files of a result: figures, and the relaxed structure. Written once, whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

from esen_flows.cli.report import card_of
from esen_flows.schemas.documents import RelaxOutput, ResultDocument

Writer = Callable[[ResultDocument, Path], object]


def artefact_paths(document: ResultDocument, folder: Path) -> list[Path]:
    """The files that a result of this kind has."""
    return [folder / name for name in _WRITERS.get(document.kind, {})]


def write_artefacts(document: ResultDocument, folder: Path) -> None:
    """Write the files of a result that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in artefact_paths(document, folder):
        if not path.exists():
            _WRITERS[document.kind][path.name](document, path)


def _relaxed(document: ResultDocument, path: Path) -> None:
    from ase.io import write

    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        write(partial, RelaxOutput.model_validate(document.output).structure.to_atoms(), format="extxyz")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


# The figures' modules are imported when one is missing: matplotlib costs a second, which a stored answer does not pay.
def _relaxation(document: ResultDocument, path: Path) -> None:
    from esen_flows.plots.relaxation import plot_relaxation

    plot_relaxation(document, path)


def _phonon(document: ResultDocument, path: Path) -> None:
    from esen_flows.plots.phonon import plot_phonon

    plot_phonon(document, path)


def _kappa(document: ResultDocument, path: Path) -> None:
    from esen_flows.plots.conductivity import ReferencePoint, plot_kappa

    card, temperature = card_of(document), document.summary["temperature_kelvin"]
    entries = card.references(document.formula, "kappa_rta_w_per_m_k") if card else ()
    points = [
        ReferencePoint(reference.source, float(temperature or 0.0), reference.value)
        for entry in entries
        for reference in entry.reference
    ]
    plot_kappa(document, path, points)


def _cumulative(document: ResultDocument, path: Path) -> None:
    from esen_flows.plots.conductivity import plot_cumulative

    plot_cumulative(document, path)


_WRITERS: dict[str, dict[str, Writer]] = {
    "relax": {"relaxed.extxyz": _relaxed, "relaxation.png": _relaxation},
    "phonon": {"phonon.png": _phonon},
    "conductivity": {"kappa.png": _kappa, "cumulative_kappa.png": _cumulative},
}
