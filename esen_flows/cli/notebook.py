"""What the commands do, as functions for notebooks and scripts: the same checks, keys, database and figures.

import esen_flows as ef

silicon = ef.load("Si.cif")
kappa = ef.kappa(silicon, "esen_silicon", settings={"mesh": (15, 15, 15)})
"""

import base64
import html
import io
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import Atoms

from esen_flows.cli.options import DEFAULT_MODEL
from esen_flows.cli.output.artefacts import artefact_paths, first_figure, write_artefacts
from esen_flows.cli.output.report import print_report, report_rows
from esen_flows.cli.property_request import model_request, request_of
from esen_flows.cli.run_or_load import run_or_load
from esen_flows.cli.store import open_store
from esen_flows.schemas.declarations import Dtype
from esen_flows.schemas.documents import ResultDocument, StructureData
from esen_flows.schemas.property_lookup import entry_of, kind_named
from esen_flows.structures.conversion import as_atoms
from esen_flows.structures.files import read_structure

if TYPE_CHECKING:
    import pandas
    from pymatgen.core import Structure


@dataclass(frozen=True, repr=False)
class Result:
    """A property of a structure, which is stored.

    Printing it gives the report of the command; a notebook shows its numbers and its first figure.

    Attributes
    ----------
    steps
        Results of all steps, without large arrays; the last one is the property.
    stored
        Keys of the results that were not computed now.
    """

    steps: tuple[ResultDocument, ...]
    stored: frozenset[str]

    @property
    def document(self) -> ResultDocument:
        """The property, without large arrays."""
        return self.steps[-1]

    @property
    def key(self) -> str:
        """Key of the property."""
        return self.document.key

    @property
    def summary(self) -> dict[str, Any]:
        """The numbers of the report by name, with units at the ends of the names."""
        return dict(self.document.summary)

    @property
    def output(self) -> dict[str, Any]:
        """All values and arrays by name, read from the database."""
        return self._complete().output or {}

    @property
    def structure(self) -> Atoms:
        """The relaxed structure, or the primitive cell of phonons and conductivities."""
        name = entry_of(self.document.kind).structure
        return StructureData(**self.output[name]).to_atoms()

    def write(self, folder: str | Path) -> list[Path]:
        """Write the figures and structure files that are not there yet.

        Parameters
        ----------
        folder
            Folder of the files; it is made if it does not exist.

        Returns
        -------
        list[Path]
            Paths of the files.

        Raises
        ------
        OSError
            The folder cannot be written to.
        """
        document = self._complete()
        write_artefacts(document, Path(folder), self.steps[:-1])
        return artefact_paths(document, Path(folder))

    def __str__(self) -> str:
        text = io.StringIO()
        with redirect_stdout(text):
            print_report(self.steps, stored=self.stored)
        return text.getvalue().rstrip()

    def __repr__(self) -> str:
        return f"<{self.document.kind} of {self.document.subject_name} by {self.document.model_label}, {self.key[:12]}>"

    def _repr_html_(self) -> str:
        document, title = self.document, entry_of(self.document.kind).title
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td style='text-align:right'>{html.escape(value)}</td>"
            f"<td>{html.escape(unit)}</td></tr>"
            for name, value, unit, _ in report_rows(document)
        )
        origin = "from the database" if document.key in self.stored else f"{document.provenance.seconds:.2f} s"
        caption = f"{document.subject_name}: {title} by {document.model_label}, {origin}, {document.key[:12]}"
        return (
            f"<div><table><caption>{html.escape(caption)}</caption>"
            f"<tr><th>quantity</th><th>value</th><th>unit</th></tr>{rows}</table>{self._figure_html}</div>"
        )

    @cached_property
    def _figure_html(self) -> str:
        """The first figure as an image inside of the page; empty for a result that has none."""
        figure = first_figure(self._complete(), self.steps[:-1])
        if figure is None:
            return ""
        image = base64.b64encode(figure).decode()
        return f"<img style='max-width:700px;width:100%' src='data:image/png;base64,{image}'>"

    def _complete(self) -> ResultDocument:
        return open_store().get(self.key) or self.document


def load(path: str | Path) -> Atoms:
    """Read a structure as the commands do.

    Parameters
    ----------
    path
        CIF, POSCAR, extended XYZ or another format that ASE reads; "file.extxyz@3" takes frame 3.

    Returns
    -------
    Atoms
        The structure.

    Raises
    ------
    InputError
        The file cannot be read, or holds no structure that can be computed.
    """
    return read_structure(Path(path))


def relax(structure: "Atoms | Structure | str | Path", model: str = DEFAULT_MODEL, **options: Any) -> Result:
    """Relax positions and cell.

    Parameters
    ----------
    structure
        ASE Atoms, a pymatgen Structure or the path of a file.
    model
        Name of a model card, or path of a checkpoint.
    options
        Options of `compute`.

    Returns
    -------
    Result
        Relaxed structure, from the database if it is stored.

    Raises
    ------
    EsenFlowsError
        The request cannot be computed, or the computation failed.
    """
    return compute("relax", structure, model, **options)


def phonon(structure: "Atoms | Structure | str | Path", model: str = DEFAULT_MODEL, **options: Any) -> Result:
    """Harmonic phonons: bands, density of states, thermal properties, stability.

    Parameters
    ----------
    structure, model, options
        As for `relax`.

    Returns
    -------
    Result
        Phonons, from the database if they are stored.

    Raises
    ------
    EsenFlowsError
        The request cannot be computed, or the computation failed.
    """
    return compute("phonon", structure, model, **options)


def kappa(structure: "Atoms | Structure | str | Path", model: str = DEFAULT_MODEL, **options: Any) -> Result:
    """Lattice thermal conductivity.

    Parameters
    ----------
    structure, model, options
        As for `relax`.

    Returns
    -------
    Result
        Conductivity, from the database if it is stored.

    Raises
    ------
    EsenFlowsError
        The request cannot be computed, or the computation failed.
    """
    return compute("conductivity", structure, model, **options)


def compute(
    kind: str,
    structure: "Atoms | Structure | str | Path | None",
    model: str = DEFAULT_MODEL,
    *,
    settings: Mapping[str, Any] | None = None,
    protocol: str = "general",
    born: str | Path | None = None,
    dtype: Dtype | None = None,
    device: str = "cpu",
    yes: bool = False,
) -> Result:
    """A property: the stored result if there is one, else it is computed in this process and stored.

    Parameters
    ----------
    kind
        Kind of result, or the name of its command.
    structure
        ASE Atoms, a pymatgen Structure or the path of a file; None for a property of the force field itself.
    model
        Name of a model card, or path of a checkpoint.
    settings
        Fields of the protocol by dotted name, such as {"mesh": (15, 15, 15)}; `esen-flows fields` lists them.
    protocol
        Named protocol that the settings change.
    born
        File with the Born charges of a polar crystal.
    dtype
        Precision of the force calls; None for that of the force field.
    device
        cpu, cuda or cuda:N.
    yes
        Whether supercells of unusual size are wanted.

    Returns
    -------
    Result
        The property.

    Raises
    ------
    EsenFlowsError
        The request cannot be computed, or the computation failed.
    """
    if structure is None:
        request = model_request(kind_named(kind), model, dict(settings or {}), dtype, device, protocol_name=protocol)
        found = run_or_load(request, yes=yes)
        return Result(tuple(found.documents), found.stored)
    if isinstance(structure, str | Path):
        atoms, name = load(structure), Path(structure).name
    else:
        atoms = as_atoms(structure)
        name = atoms.get_chemical_formula(empirical=True)
    request = request_of(
        kind_named(kind), atoms, name, model, dict(settings or {}), dtype, device,
        protocol_name=protocol, born=None if born is None else Path(born),
    )  # fmt: skip
    answer = run_or_load(request, yes=yes)
    return Result(tuple(answer.documents), answer.stored)


def table(kind: str, **filters: Any) -> "pandas.DataFrame":
    """Stored results as a table.

    Parameters
    ----------
    kind
        Kind of result, such as "kappa", or "structures".
    filters
        Filters of `esen-flows query`: chemsys, formula, elements, spacegroup, model, campaign, where, failed, sort,
        limit.

    Returns
    -------
    pandas.DataFrame
        One row per result, with identity and summary.

    Raises
    ------
    InputError
        A filter cannot be read.
    """
    from esen_flows.store.queries.query import stream, stream_structures
    from esen_flows.store.queries.tables import to_frame

    store = open_store()
    if kind == "structures":
        return to_frame(stream_structures(store, **filters))
    return to_frame(stream(store, kind_named(kind), **filters))
