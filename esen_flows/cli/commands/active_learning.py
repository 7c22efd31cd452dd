"""`esen-flows active-learning SPEC`: training on frames of the dynamics of the force field that is trained."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from esen_flows.cli.commands.train import MaxSecondsOption
from esen_flows.cli.machine import tune_allocator
from esen_flows.cli.options import DeviceOption
from esen_flows.cli.output.json_output import JsonOption, print_json
from esen_flows.cli.usage import check_device, check_folder, parse_assignments

if TYPE_CHECKING:
    from esen_flows.physics.active_learning.rounds import Materials
    from esen_flows.schemas.active_learning import ActiveLearningSpec, RoundRecord

HELD_OUT = 0.08  # of every group, as in `train`


def active_learning(
    spec: Annotated[Path, typer.Argument(help="YAML file: teacher, students, structures, data and settings.")],
    folder: Annotated[Path, typer.Option(help="Folder of the run; give it again to continue.")] = Path(
        "active-learning"
    ),
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the file, settings.KEY of the stage. Repeatable.")
    ] = None,
    device: DeviceOption = "cpu",
    max_seconds: MaxSecondsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a force field on frames of its own dynamics, labelled by a teacher.

    Each round runs the dynamics, judges the force field on them, and trains it on the frames where it errs most. An
    interrupted run is continued by the same command.
    """
    check_device(device)
    check_folder(folder, "--folder")
    from esen_flows.physics.active_learning.rounds import active_learning as learn

    chosen = _read(spec, overrides or [])
    tune_allocator()
    materials = _materials(chosen, spec.parent, device)
    with _bars() as show:
        records = learn(chosen, materials, folder, device=device, progress=show, max_seconds=max_seconds)
    last = folder / records[-1].checkpoint
    if as_json:
        print_json({"checkpoint": last, "rounds": records})
        return
    _print(records)
    unmet = "; ".join(records[-1].unmet)
    typer.echo(f"not met after {records[-1].round} rounds: {unmet}" if unmet else "all criteria are met")
    typer.echo(f"checkpoint {last}; records in {folder}/round-*/round.json. Next: esen-flows audit {last} --quick")


def _read(path: Path, overrides: Sequence[str]) -> "ActiveLearningSpec":
    from esen_flows.schemas.active_learning import spec_of
    from esen_flows.yaml_files import read_yaml

    values = read_yaml(path)
    changes = parse_assignments(overrides, "rounds=3").items()
    if isinstance(values, dict):
        inner = {name.removeprefix("settings."): value for name, value in changes if name.startswith("settings.")}
        values |= {name: value for name, value in changes if not name.startswith("settings.")}
        if inner and isinstance(settings := values.get("settings") or {}, dict):
            values["settings"] = settings | inner
    return spec_of(values, str(path))


def _materials(spec: "ActiveLearningSpec", root: Path, device: str) -> "Materials":
    """What the specification names, read; paths are relative to its folder."""
    from esen_flows.cli.training_data import HeldOut, parse_sources, read_sources
    from esen_flows.data.importing import read_dataset
    from esen_flows.forcefield.checkpoint import load
    from esen_flows.forcefield.direct import with_forces
    from esen_flows.forcefield.load import load_force_field
    from esen_flows.physics.active_learning.rounds import Materials
    from esen_flows.schemas.card import checkpoint_path, read_card
    from esen_flows.structures.inputs import as_structures
    from esen_flows.training.config import read_config

    def is_path(name: str) -> bool:
        return "/" in name or name.endswith((".safetensors", ".yaml", ".yml"))

    def student(name: str) -> Any:
        return load(root / name if is_path(name) else checkpoint_path(read_card(name)))

    students = [student(name) for name in spec.students]
    teacher = load_force_field(root / spec.teacher if is_path(spec.teacher) else spec.teacher, device=device)
    data = read_sources(parse_sources([str(root / name) for name in spec.data], "data"))
    validation = None if spec.validation is None else read_dataset(root / spec.validation)
    if validation is None:
        data, validation = HeldOut(None, HELD_OUT, 0).split(data, None)
    return Materials(
        students=students,
        teacher=with_forces(teacher, spec.teacher_forces),
        structures=as_structures([str(root / name) for name in spec.structures]),
        data=data,
        validation=validation,
        stage=None if spec.stage is None else read_config(root / spec.stage),
    )


@contextmanager
def _bars() -> Iterator[Callable[[int, str, int, int], None]]:
    """A progress bar for each part of each round, on stderr."""
    from esen_flows.cli.output.progress import progress_bars

    tasks: dict[tuple[int, str], Any] = {}
    with progress_bars() as bars:

        def show(number: int, part: str, done: int, total: int) -> None:
            if (number, part) not in tasks:
                tasks[number, part] = bars.add_task(f"round {number}: {part}", total=total)
            bars.update(tasks[number, part], completed=done, total=total)

        yield show


def _print(records: "Sequence[RoundRecord]") -> None:
    """One row for each round."""
    from rich.table import Table

    from esen_flows.cli.output.tables import show

    table = Table()
    for title in (
        "round", "frames added", "own force MAE (meV/A)", "held-out force MAE (meV/A)", "largest drift (meV/atom/ps)",
        "failed runs", "frames refused",
    ):  # fmt: skip
        table.add_column(title, justify="right")
    for one in records:
        slope = one.largest_slope
        table.add_row(
            str(one.round),
            str(one.frames_added),
            f"{one.own['force_mae_mev_per_angstrom']:.3g}",
            f"{one.held_out['force_mae_mev_per_angstrom']:.3g}",
            "none" if slope is None else f"{slope[0]:.2g} +- {slope[1]:.1g}",
            f"{one.failures} of {len(one.trajectories)}",
            str(sum(one.refused.values())),
        )
    show(table)
