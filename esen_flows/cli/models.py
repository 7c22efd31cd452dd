"""`esen-flows models [NAME]`: which force fields exist, and what was measured of one."""

import re
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.table import Table

from esen_flows.schemas.card import ModelCard, list_cards, read_card


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("models")(models)


def models(name: Annotated[str | None, typer.Argument(help="A model card; without it, all of them.")] = None) -> None:
    """List the model cards, or show one with its measured results."""
    console = Console()
    if name is None:
        console.print(_overview([read_card(card) for card in list_cards()]))
        return
    card = read_card(name)
    console.print(f"{card.name} ({card.family})\n{card.description.strip()}\n", highlight=False, markup=False)
    console.print(_facts(card), highlight=False, markup=False)
    if card.measured:
        console.print(_measured(card))


def _overview(cards: list[ModelCard]) -> Table:
    table = Table()
    for heading in ("model", "family", "elements", "conservative", "symmetry", "description"):
        table.add_column(heading)
    for card in cards:
        conservative = "yes" if card.conservative else "no"
        table.add_row(card.name, card.family, _elements(card), conservative, card.equivariance, _first_words(card))
    return table


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
