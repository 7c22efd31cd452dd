"""`esen-flows label` and `esen-flows train`: from a recipe of structures to a checkpoint."""

from pathlib import Path
from typing import Annotated, Any

import typer

ARGUMENT_RECIPE = typer.Argument(help="YAML recipe of structures, such as models/esen_silicon/data.yaml")
ARGUMENT_CONFIG = typer.Argument(help="flat YAML training file, such as models/esen_silicon/training.yaml")


def label(
    recipe: Annotated[Path, ARGUMENT_RECIPE],
    output: Annotated[Path, typer.Option(help="extended XYZ dataset to write")],
    model: Annotated[str, typer.Option(help="labeller: a card's name or a checkpoint")] = "sevennet_l3i5",
    device: Annotated[str, typer.Option(help="torch device")] = "cpu",
) -> None:
    """Make the structures of a recipe and label them, averaged with their mirror images. Resumes when interrupted."""
    from rich.progress import Progress

    from esen_flows.cli.machine import tune_allocator
    from esen_flows.data.generate import generate, read_recipe
    from esen_flows.forcefield.load import load_force_field
    from esen_flows.schemas.card import resolve_model
    from esen_flows.schemas.keys import sha256_of
    from esen_flows.training.label import label as label_structures
    from esen_flows.training.snapshots import langevin

    asked = read_recipe(recipe)
    card = resolve_model(model).card
    licence = "; ".join(f"{part}: {text}" for part, text in card.licence.items()) if card else ""
    force_field = load_force_field(model, device=device)
    tune_allocator()
    trajectories = output.with_name(f"{output.name}.snapshots")
    structures = generate(
        asked, dynamics=langevin(force_field, trajectories, lambda name: typer.echo(f"molecular dynamics of {name}"))
    )
    with Progress() as bar:
        task = bar.add_task(f"labelling by {force_field.label}", total=len(structures))
        path = label_structures(
            structures,
            force_field,
            output,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            recipe_hash=sha256_of(recipe.read_text()),
            licence=licence,
        )
    typer.echo(f"{len(structures)} labelled structures in {path}")


def train(
    config: Annotated[Path, ARGUMENT_CONFIG],
    data: Annotated[Path, typer.Option(help="labelled extended XYZ")],
    folder: Annotated[Path, typer.Option(help="where checkpoint, history and state go; give it again to resume")],
    initial: Annotated[Path | None, typer.Option(help="checkpoint to start from instead of random weights")] = None,
    validation_fraction: Annotated[float, typer.Option(help="held out of every group")] = 0.08,
    split_seed: Annotated[int, typer.Option(help="seed of the split")] = 0,
) -> None:
    """Train an eSEN. Interrupted, it saves; the same command goes on batch for batch."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from esen_flows.cli.machine import tune_allocator
    from esen_flows.data.extxyz import read_labelled, read_provenance
    from esen_flows.data.splits import split_by_group
    from esen_flows.forcefield.checkpoint import load
    from esen_flows.training.config import read_config
    from esen_flows.training.train import train as run_training

    settings = read_config(config)
    structures = read_labelled(data)
    training, held_out = split_by_group([s.group for s in structures], validation_fraction, split_seed)
    provenance: dict[str, Any] = {"data": read_provenance(data), "split_seed": split_seed}
    tune_allocator()
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns) as bar:
        task = bar.add_task("training", total=None)

        def show(state: dict[str, float]) -> None:
            text = f"epoch {state['epoch'] + 1}/{settings.epochs}, loss {state['loss']:.4f}"
            bar.update(task, description=text, completed=state["step"], total=state["total_steps"])

        path = run_training(
            settings,
            [structures[i] for i in training],
            [structures[i] for i in held_out],
            folder,
            initial=None if initial is None else load(initial),
            provenance=provenance,
            progress=show,
        )
    typer.echo(f"checkpoint {path}; errors by epoch in {folder / 'history.csv'}")


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(label)
    app.command()(train)
