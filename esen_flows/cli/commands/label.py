"""`esen-flows label RECIPE`: from a recipe of structures to a dataset labelled by a force field."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from esen_flows.cli.machine import tune_allocator
from esen_flows.cli.options import DeviceOption
from esen_flows.cli.output.json_output import JsonOption, print_json
from esen_flows.cli.usage import UsageError, check_device, check_folder
from esen_flows.schemas.card import ModelReference, resolve_model
from esen_flows.schemas.keys import sha256_of

if TYPE_CHECKING:
    from esen_flows.data.recipes import Recipe

_LOG_LINES = 100  # where a bar would be lost, as in a log file


def label(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe of structures, e.g. models/esen_silicon/data.yaml.")],
    output: Annotated[Path, typer.Option(help="Extended XYZ dataset to write.")],
    model: Annotated[str, typer.Option(help="Labelling force field: a model card or a checkpoint.")] = "sevennet_l3i5",
    forces: Annotated[
        Literal["conservative", "direct"],
        typer.Option(help="Forces of the labels: as the force field gives them, or those of its direct heads."),
    ] = "conservative",
    phonons: Annotated[
        Path | None,
        typer.Option(help="Also compute phonons of the recipe's crystals into this folder, for train --phonons."),
    ] = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Make the structures of a recipe and label them, averaged with their mirror images.

    Crystals without a lattice constant are relaxed by the labelling force field first. The same command continues an
    interrupted run.
    """
    from ase import Atoms
    from rich.progress import Progress

    from esen_flows.data.generate import generate
    from esen_flows.data.recipes import read_recipe
    from esen_flows.forcefield.direct import with_forces
    from esen_flows.forcefield.load import load_force_field
    from esen_flows.physics.crystals import with_relaxed_crystals
    from esen_flows.physics.lattice.recipe_phonons import refuse_foreign_phonons, write_phonons
    from esen_flows.structures.checks import check_elements
    from esen_flows.training.label import label as label_structures
    from esen_flows.training.label import refuse_foreign_labels
    from esen_flows.training.snapshots import langevin
    from esen_flows.yaml_files import read_yaml

    check_device(device)
    check_folder(output.parent)
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder; give the path of a file to write")
    plan, reference = read_recipe(recipe), resolve_model(model)
    check_elements(Atoms(plan.symbols()), reference)
    if phonons is not None:
        _check_phonons(phonons, forces, plan, reference)
    card = reference.card
    licence = "; ".join(f"{part}: {text}" for part, text in card.licence.items()) if card else ""
    force_field = with_forces(load_force_field(model, device=device), forces)
    recipe_hash = sha256_of(read_yaml(recipe))
    refuse_foreign_labels(output, force_field, recipe_hash)
    if phonons is not None:
        refuse_foreign_phonons(phonons, force_field)
    tune_allocator()
    plan = with_relaxed_crystals(
        plan,
        force_field,
        output.with_name(f"{output.name}.crystals.json"),
        lambda name, done, total: typer.echo(f"crystal {done} of {total}: {name} relaxed"),
    )
    trajectories = output.with_name(f"{output.name}.snapshots")
    dynamics = langevin(force_field, trajectories, lambda name: typer.echo(f"molecular dynamics of {name}"))
    structures = generate(plan, dynamics=dynamics)
    in_terminal = sys.stdout.isatty()
    with Progress(disable=not in_terminal) as bar:
        task = bar.add_task(f"labelling by {force_field.label}", total=len(structures))

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            if not in_terminal and done * _LOG_LINES // total > (done - 1) * _LOG_LINES // total:
                typer.echo(f"{done} of {total} structures labelled")

        path = label_structures(
            structures,
            force_field,
            output,
            progress=show,
            recipe_hash=recipe_hash,
            licence=licence,
            crystals=plan.crystals,
        )
    typer.echo(f"{len(structures)} labelled structures in {path}")
    made: list[Path] = []
    if phonons is not None:
        made = write_phonons(
            plan.crystals,
            force_field,
            phonons,
            lambda name, done, total: typer.echo(f"phonons {done} of {total}: {name}"),
        )
        typer.echo(f"phonons of {len(made)} crystals in {phonons}")
    if as_json:
        print_json({"output": path, "structures": len(structures), "crystals": plan.crystals, "phonons": made})


def _check_phonons(folder: Path, forces: str, plan: "Recipe", reference: ModelReference) -> None:
    """Refuse phonons that cannot be computed or written, before anything is computed."""
    check_folder(folder, "--phonons")
    if forces == "direct":
        raise UsageError("--phonons needs forces that are the gradient of an energy; leave out --forces direct")
    if not plan.crystals:
        raise UsageError("--phonons: the recipe has no crystals")
    reference.require_conservative("label --phonons")
