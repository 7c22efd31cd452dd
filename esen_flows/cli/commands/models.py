"""`esen-flows models [show | convert | pull]`: which force fields exist, and how published ones get here."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table

from esen_flows.cli.overrides import UsageError
from esen_flows.errors import EsenFlowsError, InputError
from esen_flows.schemas.card import checkpoint_path, list_cards, read_card
from esen_flows.schemas.model_card import ModelCard
from esen_flows.schemas.protocol_fields import parse_value

app = typer.Typer(help="Which force fields exist; without a command, all of them.", invoke_without_command=True)


@app.callback()
def models(context: typer.Context) -> None:
    """List the model cards."""
    if context.invoked_subcommand is None:
        Console().print(_overview([read_card(card) for card in list_cards()]))


@app.command()
def show(name: Annotated[str, typer.Argument(help="A model card.")]) -> None:
    """One model card with its measured results."""
    console = Console()
    card = read_card(name)
    console.print(f"{card.name} ({card.family})\n{card.description.strip()}\n", highlight=False, markup=False)
    console.print(_facts(card), highlight=False, markup=False)
    if card.measured:
        console.print(_measured(card))


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A published checkpoint (.pt).")],
    output: Annotated[Path | None, typer.Option(help="Default: the same name, ending in .safetensors.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="An option that the file does not say, such as use_envelope=true. Repeatable."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="An option of the file that does not matter. Repeatable.")
    ] = None,
    elements: Annotated[str | None, typer.Option(help="Elements that it knows, such as Si,O.")] = None,
    task: Annotated[str | None, typer.Option(help="Whose scale and references, in a file of several tasks.")] = None,
) -> None:
    """Turn a published checkpoint into a native one; nothing in the file is run."""
    if not file.is_file():
        raise InputError(f"no file {file}")
    target = output or file.with_suffix(".safetensors")
    if target.exists():
        raise UsageError(f"{target} exists; give another --output, or remove it")
    if target.suffix != ".safetensors":
        raise UsageError(f"--output {target} does not end in .safetensors, by which a model is known")
    if not target.parent.is_dir():
        raise UsageError(f"no folder {target.parent} for --output; make it first")
    options = dict(_assignment(text) for text in assignments or [])
    known = None if elements is None else [_number(symbol) for symbol in elements.split(",")]
    from esen_flows.forcefield.checkpoint import save
    from esen_flows.forcefield.converted import read_published

    checkpoint = read_published(file, options=options, ignore=ignore or (), elements=known, task=task)
    key = save(target, checkpoint)
    parameters = sum(p.numel() for p in checkpoint.network.parameters())
    typer.echo(f"wrote {target}: {parameters:,} parameters, model key {key}")


@app.command()
def pull(name: Annotated[str, typer.Argument(help="A model card with a source.")]) -> None:
    """Fetch a published checkpoint by its card, verify it, convert it."""
    card = read_card(name)
    from esen_flows.forcefield.pull import pull as fetch

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(card.name, total=None)
        path = fetch(card, progress=lambda done, total: bar.update(task, completed=done, total=total))
    typer.echo(f"{card.name} is at {path}")


def _assignment(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise UsageError(f"--set {text!r} is not name=value; for example --set use_envelope=true")
    return name.strip(), parse_value(value.strip())


def _number(symbol: str) -> int:
    from ase.data import atomic_numbers

    if symbol.strip() not in atomic_numbers:
        raise UsageError(f"--elements {symbol!r} is not an element; write them as Si,O")
    return atomic_numbers[symbol.strip()]


def _overview(cards: list[ModelCard]) -> Table:
    table = Table()
    for heading in ("model", "here", "elements", "conservative", "symmetry", "description"):
        table.add_column(heading, no_wrap=heading == "model")
    for card in cards:
        conservative = "yes" if card.conservative else "no"
        table.add_row(card.name, _here(card), _elements(card), conservative, card.equivariance, _first_words(card))
    return table


def _here(card: ModelCard) -> str:
    if card.family == "third_party":
        return "package"
    try:
        checkpoint_path(card)
    except EsenFlowsError:
        if card.source is not None:
            return "to pull"
        return "to train" if card.recipes else "no"
    return "yes"


def _first_words(card: ModelCard) -> str:
    return re.split(r"[:.(]", " ".join(card.description.split()), maxsplit=1)[0].strip()


def _elements(card: ModelCard) -> str:
    if card.elements is None:
        return "any"
    return " ".join(card.elements) if len(card.elements) <= 8 else f"{len(card.elements)} elements"


def _facts(card: ModelCard) -> str:
    facts = card.model_dump(
        mode="json", exclude={"name", "family", "description", "measured"}, exclude_none=True, exclude_defaults=True
    )
    return yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=100)


def _measured(card: ModelCard) -> Table:
    table = Table(title="measured", title_justify="left")
    for heading in ("property", "formula", "value", "unit", "conditions", "reference"):
        table.add_column(heading)
    for entry in card.measured:
        references = "\n".join(f"{reference.source} {reference.value:g}" for reference in entry.reference)
        table.add_row(entry.property, entry.formula or "", f"{entry.value:g}", entry.unit, entry.conditions, references)
    return table
