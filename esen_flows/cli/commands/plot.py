"""`esen-flows plot KEY KEY ...`: stored results of one kind in one figure, for example of several force fields."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esen_flows.cli import options
from esen_flows.cli.commands.results import one_result, parents_of
from esen_flows.cli.output.artefacts import in_unit, plot_functions
from esen_flows.cli.store import open_store
from esen_flows.cli.usage import check_folder
from esen_flows.errors import InputError
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.property_lookup import entry_of

if TYPE_CHECKING:
    from esen_flows.store.results import Store

# Names, in the protocol of a property, of the protocols of the steps before it.
_NESTED = {"forces": "displacement", "relax": "relax"}
KeysArgument = Annotated[
    list[str], typer.Argument(metavar="KEY...", help="Result keys, or at least their first four digits.")
]
FiguresOption = Annotated[Path, typer.Option("--output", "-o", help="Folder for the figures.")]


def plot(
    keys: KeysArgument, output: FiguresOption = Path("results/together"), unit: options.UnitOption = "THz"
) -> None:
    """Compare phonons or conductivities in one figure: bands, DOS and heat, or cumulative kappa and lifetimes."""
    from esen_flows.makers.compute import raise_if_failed

    store = open_store()
    documents = [one_result(store, key, load_arrays=True) for key in dict.fromkeys(keys)]
    kinds = sorted({document.kind for document in documents})
    functions = plot_functions(kinds[0]) if len(kinds) == 1 else {}
    figures = [file for kind in kinds for file in entry_of(kind).files if file.shows_several and file.name in functions]
    if not figures:
        raise InputError(f"these are results of kind {', '.join(kinds)}; give phonons alone, or conductivities alone")
    formulas = sorted({document.subject_name for document in documents})
    if len(formulas) > 1:
        raise InputError(f"these are results of {', '.join(formulas)}; give those of one crystal")
    for document in documents:
        raise_if_failed(document)
    documents = [_with_parents(store, document) for document in documents]
    check_folder(output)
    output.mkdir(parents=True, exist_ok=True)
    for file in figures:
        draw, path = functions[file.name], output / in_unit(file, unit)
        in_its_unit = {"unit": unit} if file.frequencies else {}
        typer.echo(f"wrote    {draw(documents[0], path, documents[1:], **in_its_unit)}")


def _with_parents(store: "Store", document: ResultDocument) -> ResultDocument:
    """A result with the protocols of the steps before it, so that its figure can name any setting that differs."""
    protocol = dict(document.protocol)
    for parent in parents_of(store, document):
        if parent.kind in _NESTED:
            protocol[_NESTED[parent.kind]] = parent.protocol
    return document.model_copy(update={"protocol": protocol})
