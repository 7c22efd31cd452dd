"""`esen-flows train`: from labelled data to a checkpoint, by a training file, a card's recipe, or fine-tuning."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from esen_flows.cli.machine import tune_allocator
from esen_flows.cli.options import duration_option
from esen_flows.cli.output.json_output import JsonOption, print_json
from esen_flows.cli.training_data import (
    HeldOut,
    parse_sources,
    read_parent_domain,
    read_sources,
    read_stages,
    stage_configs,
)
from esen_flows.cli.training_phonons import PhononSource, read_phonons
from esen_flows.cli.usage import UsageError, check_device, check_folder, parse_assignments, refuse_ignored

if TYPE_CHECKING:
    from esen_flows.data.dataset import Dataset
    from esen_flows.training.curvature import ForceConstants
    from esen_flows.training.distributed import World
    from esen_flows.training.estimate import Estimate
    from esen_flows.training.finetune import Parent
    from esen_flows.training.recipe import Stage

WhatArgument = Annotated[
    str | None,
    typer.Argument(
        help="Training file (flat YAML, e.g. models/esen_silicon/training.yaml), or card with a recipe (esen_30m_mp). "
        "Not with --finetune."
    ),
]
SourcesOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Labelled data: a dataset folder, or a file that `esen-flows data import` reads. PATH:8 counts them eight "
        "times; NAME=PATH gives their name in a card's recipe. Repeatable."
    ),
]
FolderOption = Annotated[
    Path | None, typer.Option(help="Folder for all output; give it again to continue.", show_default="training")
]
MaxSecondsOption = Annotated[float | None, duration_option("Save and stop after: 90 (s), 30m, 2h.")]
SubmitOption = Annotated[
    bool, typer.Option("--submit", help="Train nothing here: store the data and submit the stages for workers.")
]


def train(
    what: WhatArgument = None,
    data: SourcesOption = None,
    folder: FolderOption = None,
    validation: Annotated[Path | None, typer.Option(help="Held-out data. Default: a share of --data.")] = None,
    validation_fraction: Annotated[float, typer.Option(help="Share of every group that is held out.")] = 0.08,
    split_seed: Annotated[int, typer.Option(min=0, help="Seed of the split.")] = 0,
    initial: Annotated[Path | None, typer.Option(help="Checkpoint to start from. Default: random weights.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe of the card. Default: its first.")] = None,
    stage: Annotated[int | None, typer.Option(help="Train only this stage of the recipe, from 1.")] = None,
    finetune: Annotated[str | None, typer.Option(help="Card or checkpoint to fine-tune on --data.")] = None,
    phonons: Annotated[
        Path | None,
        typer.Option(
            help="phonopy_params.yaml, or a folder with phonopy_disp.yaml and FORCE_SETS. For stages with "
            "curvature_weight also a folder of such folders (label --phonons)."
        ),
    ] = None,
    curvature_weight: Annotated[
        float | None,
        typer.Option(min=0, help="Weight of Hessian-vector products in the loss, with --finetune.", show_default="1"),
    ] = None,
    replay: Annotated[Path | None, typer.Option(help="Data of the parent's domain, with --finetune.")] = None,
    replay_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of --replay to train on; the rest is held out.")
    ] = 0.0,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE of the stages. Repeatable.")] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Measure a step, print the total cost, stop.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda. For several processes use torchrun.")] = "cpu",
    max_seconds: MaxSecondsOption = None,
    submit: SubmitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train an eSEN, or fine-tune one (--finetune).

    An interrupted training saves its state; the same command continues with the next batch.
    """
    if (what is None) == (finetune is None):
        raise UsageError("give a training file or a card, or --finetune MODEL with --data or --phonons")
    if what is not None:
        refuse_ignored({"--replay": replay}, "without --finetune")
        to_do = "set curvature_weight in the training file, or with --set"
        refuse_ignored({"--curvature-weight": curvature_weight}, "without --finetune", to_do)
    else:
        of_stages = {"--initial": initial, "--recipe": recipe, "--stage": stage, "--estimate": estimate}
        refuse_ignored({**of_stages, "--submit": submit}, "with --finetune")
    if submit:
        of_this_process = {"--folder": folder, "--validation": validation, "--estimate": estimate, "--phonons": phonons}
        refuse_ignored({**of_this_process, "--json": as_json}, "with --submit")
    check_device(device)
    if not 0.0 < validation_fraction < 1.0:
        raise UsageError(f"--validation-fraction {validation_fraction:g}: give a share between 0 and 1")
    sources = [] if phonons is not None and not data else parse_sources(data or [])
    changes = parse_assignments(overrides or [], "epochs=20")
    held_out = HeldOut(validation, validation_fraction, split_seed)
    if what is not None and submit:
        from esen_flows.cli.submission import submit_training

        configs = list(stage_configs(what, recipe, stage, sources, changes))
        submit_training(configs, held_out, initial, device, max_seconds)
        return
    tune_allocator()
    folder = folder or Path("training")
    check_folder(folder, "--folder")
    if finetune is not None:
        data_sets = held_out.split(read_sources(sources), folder) if sources else None
        domain = read_parent_domain(replay, replay_share, split_seed)
        source = (
            None if phonons is None else read_phonons(phonons, 1.0 if curvature_weight is None else curvature_weight)
        )
        found: Any = _finetune(finetune, data_sets, source, domain, folder, changes, device, max_seconds)
    elif what is not None:
        stages = read_stages(what, recipe, stage, sources, held_out, changes, None if estimate else folder)
        force_constants = _read_force_constants(stages, phonons)
        if estimate:
            found = _estimate(stages, force_constants, device)
        else:
            found = _train(stages, folder, initial, force_constants, device, max_seconds)
    if as_json and found is not None:
        print_json(found)


def _read_force_constants(stages: Sequence["Stage"], phonons: Path | None) -> list["ForceConstants"]:
    """Force constants for those stages that train on them."""
    if phonons is None:
        return []
    if not any(stage.config.curvature_weight for stage in stages):
        raise UsageError("--phonons: no stage has a curvature_weight; give one, such as --set curvature_weight=1")
    from esen_flows.physics.lattice.phonon_labels import read_force_constants

    return read_force_constants(phonons)


def _train(
    stages: Sequence["Stage"],
    folder: Path,
    initial: Path | None,
    force_constants: Sequence["ForceConstants"],
    device: str,
    max_seconds: float | None,
) -> dict[str, Any] | None:
    """The checkpoint with its errors on held-out data, and None in processes that do not lead."""
    from esen_flows.forcefield.checkpoint import load
    from esen_flows.training.distributed import joined
    from esen_flows.training.recipe import train_stages

    with joined(device) as world:
        with _bar(world) as show:
            path = train_stages(
                stages,
                folder,
                initial=None if initial is None else load(initial),
                provenance={"data": [stage.training.provenance for stage in stages]},
                progress=show,
                world=world,
                max_seconds=max_seconds,
                force_constants=force_constants,
            )
        if world.leads:
            typer.echo(f"checkpoint {path}; errors by epoch in {path.parent / 'history.csv'}, steps in steps.csv")
            _draw([folder / stage.name for stage in stages], folder)
        if not world.leads:
            return None
    trained = load(path)
    return {"checkpoint": path, "model_key": trained.model_key, "training": trained.training}


def _finetune(
    model: str,
    data_sets: tuple["Dataset", "Dataset"] | None,
    phonons: PhononSource | None,
    domain: "Parent | None",
    folder: Path,
    changes: dict[str, Any],
    device: str,
    max_seconds: float | None,
) -> dict[str, Any] | None:
    """Errors before and after, and None in processes that do not lead."""
    from esen_flows.forcefield.checkpoint import load
    from esen_flows.schemas.card import checkpoint_path, read_card
    from esen_flows.training.distributed import joined
    from esen_flows.training.finetune import finetune, finetune_config

    with joined(device) as world:
        is_file = model.endswith(".safetensors") or "/" in model
        parent = load(Path(model) if is_file else checkpoint_path(read_card(model)))
        if phonons is not None:
            data_sets, changes = phonons.data(parent, data_sets), phonons.defaults(data_sets is None) | changes
        assert data_sets is not None  # without phonons, data are required
        training, validation = data_sets
        config = finetune_config(parent, training, changes)
        with _bar(world) as show:
            report = finetune(
                parent, config, training, validation, folder, domain=domain,
                provenance={"data": training.provenance, "parent": model}, progress=show, world=world,
                max_seconds=max_seconds,
                force_constants=[phonons.labels.force_constants] if phonons and config.curvature_weight else (),
            )  # fmt: skip
        if world.leads:
            _write_stage(folder / "stage.yaml", config.to_dict(), model)
            _print_errors(report)
            if phonons is not None:
                typer.echo(phonons.report(parent, load(report["checkpoint"]), folder))
            typer.echo(f"checkpoint {report['checkpoint']}; all errors by group in {folder / 'report.json'}")
            _draw([folder], folder)
    return report if world.leads else None


def _print_errors(report: Mapping[str, Any]) -> None:
    """Errors before and after a fine-tuning, on the held-out data and in the parent's domain."""
    for title, errors in (("held out", report["own"]), ("parent's domain", report["parent_domain"])):
        for when in ("before", "after") if errors else ():
            row = errors[when]["all"]
            stress = row["stress_mae_mev_per_angstrom3"]
            stress_text = "no stress labels" if stress != stress else f"stress {stress:.3g} meV/A^3"  # NaN: no labels
            typer.echo(
                f"{title + ', ' + when:24} energy {row['energy_mae_mev_per_atom']:.3g} meV/atom, "
                f"force {row['force_mae_mev_per_angstrom']:.3g} meV/A, {stress_text} (mean absolute errors)"
            )


def _draw(stages: Sequence[Path], folder: Path) -> None:
    from esen_flows.plots.training import StageCurves, plot_learning_curves
    from esen_flows.training.metrics import HISTORY_NAME, STEPS_NAME, read_rows

    curves = [StageCurves(read_rows(path / STEPS_NAME), read_rows(path / HISTORY_NAME)) for path in stages]
    typer.echo(f"learning curves {plot_learning_curves({'training': curves}, folder / 'learning_curves.png')}")


def _write_stage(path: Path, values: dict[str, Any], model: str) -> None:
    import yaml

    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    text = f"# Fine-tuning of {model}: the settings that were used.\n" + yaml.safe_dump(plain, sort_keys=False)
    path.write_text(text, encoding="utf-8")


def _estimate(
    stages: Sequence["Stage"], force_constants: Sequence["ForceConstants"], device: str
) -> "dict[str, Estimate]":
    from esen_flows.training.estimate import estimate

    costs = {}
    for stage in stages:
        own = force_constants if stage.config.curvature_weight else ()
        cost = costs[stage.name or "stage"] = estimate(stage.config, stage.training, device, own)
        typer.echo(
            f"{stage.name or 'stage'}: {cost.parameters:,} parameters; {stage.config.epochs} epochs, {cost.steps:,} "
            f"steps, {cost.structures:,} structures, {cost.edges:.3g} edges; {1e6 * cost.seconds_per_edge:.3g} us per "
            f"edge measured here; {cost.device_hours:.3g} hours on one such {device}"
        )
    return costs


@contextmanager
def _bar(world: "World") -> Iterator[Callable[[dict[str, float]], None]]:
    """A progress bar of the leading process; yields what the training calls with its state."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, disable=not world.leads) as bar:
        task = bar.add_task("training", total=None)

        def show(state: dict[str, float]) -> None:
            text = f"epoch {state['epoch'] + 1:.0f}, loss {state['loss']:.4f}"
            bar.update(task, description=text, completed=state["step"], total=state["total_steps"])

        yield show
