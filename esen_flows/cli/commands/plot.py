"""`esen-flows plot KEY KEY ...`: stored results of one kind in one figure, as of several force fields."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from esen_flows.cli.commands.properties import check_folder
from esen_flows.cli.commands.results import one_result
from esen_flows.errors import InputError

if TYPE_CHECKING:
    from esen_flows.schemas.documents import ResultDocument

Keys = Annotated[
    list[str], typer.Argument(metavar="KEY...", help="Result keys, or the first four or more of their digits.")
]
Folder = Annotated[Path, typer.Option("--output", "-o", help="Folder for the figures.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plot")(plot)


def plot(keys: Keys, output: Folder = Path("results/together")) -> None:
    """Lay phonons, or conductivities, over one another: bands and DOS, cumulative kappa, lifetimes."""
    from esen_flows.makers.compute import raise_if_failed
    from esen_flows.store.connection import open_store

    store = open_store()
    documents = [one_result(store, key, load_arrays=True) for key in dict.fromkeys(keys)]
    kinds = sorted({document.kind for document in documents})
    figures = _figures(kinds[0]) if len(kinds) == 1 else {}
    if not figures:
        raise InputError(f"results of kind {', '.join(kinds)}; give phonons alone, or conductivities alone")
    formulas = sorted({document.formula for document in documents})
    if len(formulas) > 1:
        raise InputError(f"results of {', '.join(formulas)}; give those of one crystal")
    for document in documents:
        raise_if_failed(document)
    check_folder(output)
    output.mkdir(parents=True, exist_ok=True)
    for name, draw in figures.items():
        typer.echo(f"wrote    {draw(documents[0], output / name, documents[1:])}")


def _figures(kind: str) -> Mapping[str, Callable[["ResultDocument", Path, Sequence["ResultDocument"]], Any]]:
    """What shows several results of a kind, by the name of its file; matplotlib is imported here."""
    if kind == "phonon":
        from esen_flows.plots.phonon import plot_phonon

        return {"phonon.png": plot_phonon}
    if kind == "conductivity":
        from esen_flows.plots.conductivity import plot_cumulative
        from esen_flows.plots.lifetimes import plot_lifetimes, plot_mean_free_paths

        return {
            "cumulative_kappa.png": plot_cumulative,
            "lifetimes.png": plot_lifetimes,
            "mean_free_paths.png": plot_mean_free_paths,
        }
    return {}
