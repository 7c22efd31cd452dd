"""`esen-flows label` and `esen-flows train`: from a recipe of structures to a checkpoint."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from esen_flows.cli.overrides import UsageError

if TYPE_CHECKING:
    from esen_flows.data.dataset import Dataset
    from esen_flows.training.distributed import World
    from esen_flows.training.finetune import Parent
    from esen_flows.training.recipe import Stage

ARGUMENT_RECIPE = typer.Argument(help="YAML recipe of structures, such as models/esen_silicon/data.yaml")
ARGUMENT_WHAT = typer.Argument(
    help="a flat YAML training file (models/esen_silicon/training.yaml), or a card with a recipe (esen_30m_mp); "
    "leave it out with --finetune"
)
DATA_HELP = (
    "labelled data: a dataset folder, or a file that `esen-flows data import` reads; PATH:8 counts it eight times, "
    "NAME=PATH says which data of a card's recipe it is; repeat for more"
)


def label(
    recipe: Annotated[Path, ARGUMENT_RECIPE],
    output: Annotated[Path, typer.Option(help="extended XYZ dataset to write")],
    model: Annotated[str, typer.Option(help="labeller: a card's name or a checkpoint")] = "sevennet_l3i5",
    device: Annotated[str, typer.Option(help="torch device")] = "cpu",
) -> None:
    """Make the structures of a recipe and label them, averaged with their mirror images. Resumes when interrupted."""
    from rich.progress import Progress

    from esen_flows.cli.machine import tune_allocator
    from esen_flows.cli.property_request import check_device
    from esen_flows.data.generate import generate
    from esen_flows.data.recipes import read_recipe
    from esen_flows.forcefield.load import load_force_field
    from esen_flows.schemas.card import resolve_model
    from esen_flows.schemas.keys import sha256_of
    from esen_flows.training.label import label as label_structures
    from esen_flows.training.snapshots import langevin

    check_device(device)
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
    what: Annotated[str | None, ARGUMENT_WHAT] = None,
    data: Annotated[list[str] | None, typer.Option(help=DATA_HELP)] = None,
    folder: Annotated[
        Path | None, typer.Option(help="where all goes; give it again to resume", show_default="training")
    ] = None,
    validation: Annotated[Path | None, typer.Option(help="held-out data; default: a share of --data")] = None,
    validation_fraction: Annotated[float, typer.Option(help="share of every group that is held out")] = 0.08,
    split_seed: Annotated[int, typer.Option(min=0, help="seed of the split")] = 0,
    initial: Annotated[Path | None, typer.Option(help="checkpoint to start from instead of random weights")] = None,
    recipe: Annotated[str | None, typer.Option(help="which recipe of the card; default: its first")] = None,
    stage: Annotated[int | None, typer.Option(help="only this stage of the recipe, from 1")] = None,
    finetune: Annotated[str | None, typer.Option(help="card or checkpoint to adapt to --data")] = None,
    replay: Annotated[Path | None, typer.Option(help="with --finetune: data of the parent's domain")] = None,
    replay_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="how much of --replay is trained on; the rest is held out")
    ] = 0.0,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="name=value of the stage; repeat")] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="say what it would cost, and stop")] = False,
    device: Annotated[str, typer.Option(help='"cpu" or "cuda"; several processes: start this with torchrun')] = "cpu",
    max_seconds: Annotated[float | None, typer.Option(min=0.0, help="save and leave after so long")] = None,
    submit: Annotated[
        bool, typer.Option("--submit", help="Store the data, add the stages to the launchpad, train nothing here.")
    ] = False,
) -> None:
    """Train an eSEN, or fine-tune one (--finetune). Interrupted, it saves; the same command goes on batch for batch."""
    from esen_flows.cli.commands.properties import check_folder
    from esen_flows.cli.machine import tune_allocator
    from esen_flows.cli.property_request import check_device
    from esen_flows.cli.training_data import (
        HeldOut,
        asked_stages,
        changes_of,
        parent_domain,
        read_sources,
        sources_of,
        stages_of,
    )
    from esen_flows.training.distributed import joined

    if (what is None) == (finetune is None):
        raise UsageError("give a training file or a card, or --finetune MODEL with --data")
    _check_meaning(
        finetune is not None,
        submit,
        {"--initial": initial, "--recipe": recipe, "--stage": stage, "--estimate": estimate or None},
        {"--folder": folder, "--validation": validation, "--estimate": estimate or None},
        replay,
    )
    check_device(device)
    if not 0.0 < validation_fraction < 1.0:
        raise UsageError(f"--validation-fraction {validation_fraction:g}: give a share between 0 and 1")
    sources, changes = sources_of(data or []), changes_of(overrides or [])
    if not sources:
        raise UsageError("give --data: a labelled extended XYZ, or a folder made by esen-flows data import")
    held_out = HeldOut(validation, validation_fraction, split_seed)
    if what is not None and submit:
        from esen_flows.cli.submission import submit_training

        asked = list(asked_stages(what, recipe, stage, sources, changes))
        submit_training(asked, held_out, initial, device, max_seconds)
        return
    tune_allocator()
    folder = folder or Path("training")
    check_folder(folder, "--folder")
    if what is not None:
        stages = stages_of(what, recipe, stage, sources, held_out, changes, None if estimate else folder)
        if estimate:
            _estimate(stages, device)
            return
        with joined(device) as world:
            _train(stages, folder, initial, world, max_seconds)
    elif finetune is not None:
        data_of_both = held_out.split(read_sources(sources), folder)
        domain = parent_domain(replay, replay_share, split_seed)
        with joined(device) as world:
            _finetune(finetune, data_of_both, domain, folder, changes, world, max_seconds)


def _check_meaning(
    finetunes: bool, submit: bool, of_stages: dict[str, Any], of_this_process: dict[str, Any], replay: Path | None
) -> None:
    """Refuse options that would be ignored.

    Parameters
    ----------
    of_stages, of_this_process
        options by name that mean nothing to a fine-tuning, or to what is submitted; None
        where they are not given.

    Raises
    ------
    UsageError
        naming the option, and with or without which it means nothing.
    """
    if finetunes:
        _refuse({**of_stages, "--submit": submit or None}, "with --finetune")
    else:
        _refuse({"--replay": replay}, "without --finetune")
    if submit:
        _refuse(of_this_process, "with --submit")


def _refuse(options: dict[str, Any], how: str) -> None:
    """An option that would be ignored is an error."""
    if given := [name for name, value in options.items() if value is not None]:
        raise UsageError(f"{', '.join(given)}: of no meaning {how}; leave it out")


def _train(
    stages: Sequence["Stage"], folder: Path, initial: Path | None, world: "World", max_seconds: float | None
) -> None:
    from esen_flows.forcefield.checkpoint import load
    from esen_flows.training.recipe import train_stages

    with _bar(world.leads) as show:
        path = train_stages(
            stages,
            folder,
            initial=None if initial is None else load(initial),
            provenance={"data": [stage.training.provenance for stage in stages]},
            progress=show,
            world=world,
            max_seconds=max_seconds,
        )
    if world.leads:
        typer.echo(f"checkpoint {path}; errors by epoch in {path.parent / 'history.csv'}, steps in steps.csv")
        _draw([folder / stage.name for stage in stages], folder)


def _finetune(
    model: str,
    data: tuple["Dataset", "Dataset"],
    domain: "Parent | None",
    folder: Path,
    changes: dict[str, Any],
    world: "World",
    max_seconds: float | None,
) -> None:
    from esen_flows.forcefield.checkpoint import load
    from esen_flows.schemas.card import checkpoint_path, read_card
    from esen_flows.training.finetune import finetune, finetune_config

    is_file = model.endswith(".safetensors") or "/" in model
    parent = load(Path(model) if is_file else checkpoint_path(read_card(model)))
    training, validation = data
    config = finetune_config(parent, training, changes)
    folder.mkdir(parents=True, exist_ok=True)
    if world.leads:
        _write_stage(folder / "stage.yaml", config.to_dict(), model)
    with _bar(world.leads) as show:
        report = finetune(
            parent, config, training, validation, folder, domain=domain,
            provenance={"data": training.provenance, "parent": model}, progress=show, world=world,
            max_seconds=max_seconds,
        )  # fmt: skip
    if not world.leads:
        return
    for title, errors in (("held out", report["own"]), ("parent's domain", report["parent_domain"])):
        for when in ("before", "after") if errors else ():
            row = errors[when]["all"]
            stress = row["stress_mae_mev_per_angstrom3"]
            told = "no stress labels" if stress != stress else f"stress {stress:.3g} meV/A^3"
            typer.echo(
                f"{title + ', ' + when:24} energy {row['energy_mae_mev_per_atom']:.3g} meV/atom, "
                f"force {row['force_mae_mev_per_angstrom']:.3g} meV/A, {told} (mean absolute errors)"
            )
    typer.echo(f"checkpoint {report['checkpoint']}; all errors by group in {folder / 'report.json'}")
    _draw([folder], folder)


def _draw(stages: Sequence[Path], folder: Path) -> None:
    from esen_flows.plots.training import StageCurves, plot_learning_curves
    from esen_flows.training.metrics import HISTORY_NAME, STEPS_NAME, read_rows

    curves = [StageCurves(read_rows(path / STEPS_NAME), read_rows(path / HISTORY_NAME)) for path in stages]
    typer.echo(f"learning curves {plot_learning_curves({'training': curves}, folder / 'learning_curves.png')}")


def _write_stage(path: Path, values: dict[str, Any], model: str) -> None:
    import yaml

    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    path.write_text(f"# Fine-tuning of {model}: what ran.\n" + yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")


def _estimate(stages: Sequence["Stage"], device: str) -> None:
    from esen_flows.training.estimate import estimate

    for stage in stages:
        cost = estimate(stage.config, stage.training, device)
        typer.echo(
            f"{stage.name or 'stage'}: {cost.parameters:,} parameters; {stage.config.epochs} epochs, {cost.steps:,} "
            f"steps, {cost.structures:,} structures, {cost.edges:.3g} edges; {1e6 * cost.seconds_per_edge:.3g} us per "
            f"edge measured here; {cost.device_hours:.3g} hours on one such {device}"
        )


@contextmanager
def _bar(visible: bool) -> Iterator[Callable[[dict[str, float]], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, disable=not visible) as bar:
        task = bar.add_task("training", total=None)

        def show(state: dict[str, float]) -> None:
            text = f"epoch {state['epoch'] + 1:.0f}, loss {state['loss']:.4f}"
            bar.update(task, description=text, completed=state["step"], total=state["total_steps"])

        yield show


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(label)
    app.command()(train)
