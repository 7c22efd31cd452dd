"""`esen-flows models`: the force fields that exist, how to get others, and what is tested and calibrated of them."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.table import Table

from esen_flows.cli import completion
from esen_flows.cli.options import DeviceOption, DtypeOption
from esen_flows.cli.output.json_output import JsonOption, jsonable, print_json
from esen_flows.cli.output.progress import counted, downloading
from esen_flows.cli.output.tables import show as show_table
from esen_flows.cli.store import existing_store
from esen_flows.cli.usage import UsageError, check_folder, parse_assignments
from esen_flows.errors import EsenFlowsError, InputError, ModelError, StoreError
from esen_flows.files import sha256_of_file
from esen_flows.schemas.card import (
    ModelReference,
    checkpoint_path,
    find_card,
    is_card_file,
    list_cards,
    read_card,
    resolve_model,
)
from esen_flows.schemas.model_card import ModelCard

if TYPE_CHECKING:
    from esen_flows.campaigns.audits import AuditVerdict

app = typer.Typer(help="Force fields; without a command, list all of them.", invoke_without_command=True)
CardArgument = Annotated[str, typer.Argument(help="A model card.", autocompletion=completion.model_names)]
MissingOption = Annotated[
    list[str] | None, typer.Option("--set", help="An option that the file lacks, e.g. use_envelope=true. Repeatable.")
]


@app.callback()
def models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the model cards."""
    if context.invoked_subcommand is not None:
        return
    cards, verdicts = [read_card(card) for card in list_cards()], _verdicts()
    if as_json:
        print_json([_content(card, _key(card.name), verdicts) for card in cards])
    else:
        show_table(_overview(cards, verdicts))


@app.command()
def show(name: CardArgument, as_json: JsonOption = False) -> None:
    """Show a model card, by its name or the path of a calculator card, with its measured results."""
    card, file = find_card(name)
    key = _key(str(file) if is_card_file(name) else card.name)
    if as_json:
        print_json(_content(card, key, _verdicts()))
        return
    typer.echo(f"{card.name} ({card.family})\n{card.description.strip()}\n")
    typer.echo(_facts(card))
    for verdict in _verdicts().values():
        if verdict.model_key == key:
            failures = f": {verdict.failures}" if verdict.failures else ""
            typer.echo(f"audit in {verdict.dtype} ({verdict.systems}): {verdict}{failures}")
    if card.measured:
        show_table(_measured(card))


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A published checkpoint (.pt).")],
    output: Annotated[Path | None, typer.Option(help="File to write. Default: FILE with suffix .safetensors.")] = None,
    assignments: MissingOption = None,
    ignore: Annotated[list[str] | None, typer.Option(help="An option of the file to ignore. Repeatable.")] = None,
    elements: Annotated[str | None, typer.Option(help="Elements that the model was trained on, e.g. Si,O.")] = None,
    task: Annotated[str | None, typer.Option(help="In a file of several tasks, the one to convert.")] = None,
) -> None:
    """Convert a published checkpoint to a native one; no code in the file is executed."""
    if not file.is_file():
        raise InputError(f"no file {file}")
    target = output or file.with_suffix(".safetensors")
    if target.exists():
        raise UsageError(f"{target} exists; give another --output, or remove the file")
    if target.suffix != ".safetensors":
        raise UsageError(f"--output {target} does not end in .safetensors, which marks a checkpoint; give another name")
    if not target.parent.is_dir():
        raise UsageError(f"no folder {target.parent} for --output; make it first")
    options = parse_assignments(assignments or [], "use_envelope=true")
    known = None if elements is None else [_number(symbol) for symbol in elements.split(",")]
    from esen_flows.forcefield.checkpoint import save
    from esen_flows.forcefield.converted import read_published

    checkpoint = read_published(file, options=options, ignore=ignore or (), elements=known, task=task)
    key = save(target, checkpoint)
    parameters = sum(p.numel() for p in checkpoint.network.parameters())
    typer.echo(f"wrote {target}: {parameters:,} parameters, model key {key}")


@app.command()
def pull(name: CardArgument) -> None:
    """Download a published checkpoint by its card, verify it and convert it."""
    card = read_card(name)
    from esen_flows.forcefield.pull import pull as fetch

    with downloading() as begin:
        path = fetch(card, progress=begin(card.name))
    typer.echo(f"{card.name} is at {path}")


@app.command()
def install(
    name: Annotated[str, typer.Argument(help="A model of family calculator, or the path of its card.")],
    python: Annotated[
        Path | None,
        typer.Option(help="Interpreter of an environment that has the package already."),
    ] = None,
) -> None:
    """Make the environment of another package's force field and fetch its checkpoint."""
    card, _ = find_card(name)
    from esen_flows.forcefield.environments import install as make

    with downloading() as begin:
        # An environment is a path inside of it: a symbolic link to its interpreter must not be followed.
        path = make(card, python=python and python.absolute(), say=typer.echo, progress=begin(card.name))
    typer.echo(f"{card.name} computes by {path}; test it: esen-flows models check {name}")


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A model, or the path of a checkpoint or of a card.")],
    device: DeviceOption = "cpu",
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test what a force field declares: symmetry, forces and stress as derivatives, batches, shapes."""
    model = resolve_model(name)
    from esen_flows.forcefield.load import load_force_field
    from esen_flows.testing import check_force_field, sample_structures

    force_field = load_force_field(model.location, device=device, dtype=dtype or model.dtype or "float64")
    structures = sample_structures(force_field.declaration.elements)
    try:
        deviations = check_force_field(force_field, structures)
    except AssertionError as error:
        raise ModelError(f"the contract does not hold: {error}") from error
    if as_json:
        print_json({"model": force_field.label, "largest_relative_deviations": deviations})
        return
    formulas = ", ".join(atoms.get_chemical_formula() for atoms in structures)
    table = Table("check", "largest relative deviation", title=f"{force_field.label} on {formulas}: passed")
    for check_name, value in deviations.items():
        table.add_row(check_name, f"{value:.2g}")
    show_table(table)


@app.command()
def calibrate(
    name: Annotated[str, typer.Argument(help="A network of this package: a model or the path of a checkpoint.")],
    data: Annotated[list[str], typer.Option(help="Its training data: PATH. Repeatable.")],
    inside: Annotated[
        list[Path] | None, typer.Option(help="Structures that should be found inside. Repeatable.")
    ] = None,
    outside: Annotated[
        list[Path] | None, typer.Option(help="Structures that should be found outside. Repeatable.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File to write. Default: beside the checkpoint.")] = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Find out which atoms are like those of the training data, so that results say whether a structure is."""
    from esen_flows.structures.inputs import as_structures

    model, checkpoint, target = _calibrated(name, output)
    expected = [("inside", file) for file in inside or ()] + [("outside", file) for file in outside or ()]
    to_test = [(word, file, as_structures(file)) for word, file in expected]  # read before a long computation
    from esen_flows.cli.training_data import parse_sources, read_sources
    from esen_flows.forcefield.calibration import save_calibration
    from esen_flows.forcefield.checkpoint import load
    from esen_flows.forcefield.extrapolation import calibrate as fit
    from esen_flows.forcefield.extrapolation import count_outside
    from esen_flows.forcefield.network import NetworkForceField

    sources = parse_sources(data)
    if repeated := [source.path for source in sources if source.repeats > 1]:  # copies would be near one another
        raise UsageError(f"--data {repeated[0]}: give its path alone; a structure counts once in a calibration")
    # Not by its card, which may name the calibration that is to be replaced.
    force_field = NetworkForceField(load(checkpoint), label=model.label, device=device, dtype="float32")
    dataset = read_sources(sources)
    with counted(f"{len(dataset)} structures", len(dataset)) as count:
        calibration, values = fit(force_field, [item.atoms for item in dataset], on_structure=count)
    beyond = sum(value > calibration.limit for value in values)
    tests: list[dict[str, Any]] = [
        {"structures": "training data, cross-validated", "expected": "inside", "outside": beyond, "of": len(values)}
    ]
    tests += [
        {"structures": file.name, "expected": word, "outside": count_outside(force_field, structures, calibration),
         "of": len(structures)}
        for word, file, structures in to_test
    ]  # fmt: skip
    save_calibration(target, calibration)
    entry = {
        "file": target.name,
        "sha256": sha256_of_file(target),
        "data": ", ".join(Path(source).name for source in data),
        "limit": calibration.limit,
        "tests": tests,
    }
    if as_json:
        print_json({"file": target, "calibration": entry})
        return
    used = "once the card beside it says" if output or model.card else "from now on; a card beside it says"
    typer.echo(f"wrote {target}; it is used {used}:")
    typer.echo(yaml.safe_dump({"calibration": entry}, sort_keys=False, allow_unicode=True, width=100).rstrip())
    for test in tests[1:]:
        if wrong := test["outside"] if test["expected"] == "inside" else test["of"] - test["outside"]:
            typer.echo(f"{wrong} of {test['of']} in {test['structures']} are not {test['expected']}", err=True)


def _calibrated(name: str, output: Path | None) -> tuple[ModelReference, Path, Path]:
    """The network to calibrate, its checkpoint, and the file to write, which does not exist yet."""
    from esen_flows.forcefield.calibration import calibration_beside

    model = resolve_model(name)
    checkpoint = Path(model.location) if model.card is None else checkpoint_path(model.card)
    target = output or calibration_beside(checkpoint)
    if target.exists():
        raise UsageError(f"{target} exists; give another --output, or remove the file")
    if not target.parent.is_dir():
        raise UsageError(f"no folder {target.parent} for --output; make it first")
    check_folder(target.parent)
    return model, checkpoint, target


def _number(symbol: str) -> int:
    from ase.data import atomic_numbers

    if symbol.strip() not in atomic_numbers:
        raise UsageError(f"--elements: {symbol!r} is not an element; write elements as Si,O")
    return atomic_numbers[symbol.strip()]


def _overview(cards: list[ModelCard], verdicts: "dict[tuple[str, str], AuditVerdict]") -> Table:
    columns = ("model", "here", *(["audit"] if verdicts else []), "elements", "description")
    table = Table(*columns, caption="more of one: esen-flows models show MODEL")
    for card in cards:
        found = [verdict for verdict in verdicts.values() if verdict.model_key == _key(card.name)]
        audits = "\n".join(f"{'passed' if one.passed else 'failed'} {one.dtype}" for one in found)
        audited = [audits] if verdicts else []
        table.add_row(card.name, _here(card), *audited, _elements(card), _first_sentence(card))
    return table


def _content(card: ModelCard, key: str | None, verdicts: "dict[tuple[str, str], AuditVerdict]") -> dict[str, Any]:
    """A card for `--json`, with its key, whether it can be used here, and the verdicts of its audits."""
    audits = [verdict for verdict in verdicts.values() if verdict.model_key == key]
    return {**jsonable(card), "key": key, "here": _here(card), "audits": audits}


def _verdicts() -> "dict[tuple[str, str], AuditVerdict]":
    """Verdicts of stored audits; none where there is no database yet, which this command does not make."""
    from esen_flows.campaigns.audits import verdicts

    try:
        store = existing_store()
        return {} if store is None else verdicts(store)
    except StoreError as error:
        print(f"esen-flows: audits are not shown: {error}", file=sys.stderr)
        return {}


def _key(name_or_path: str) -> str | None:
    """The key of a card's force field; None if it is not on this machine."""
    try:
        return resolve_model(name_or_path).key
    except EsenFlowsError:
        return None


def _here(card: ModelCard) -> str:
    if card.calculator is not None:
        from esen_flows.forcefield.environments import is_installed

        return "yes" if is_installed(card) else "to install"
    if card.family == "third_party":
        return "yes" if card.is_installed else "to install"
    try:
        checkpoint_path(card)
    except EsenFlowsError:
        if card.source is not None:
            return "to pull"
        return "to train" if card.recipes else "no"
    return "yes"


def _first_sentence(card: ModelCard) -> str:
    """The first sentence of the description; a dot inside of a number or a name does not end it."""
    return re.split(r"(?<=\.)\s+(?=[A-Z])", " ".join(card.description.split()), maxsplit=1)[0].strip()


def _elements(card: ModelCard) -> str:
    if card.elements is None:
        return "any"
    return " ".join(card.elements) if len(card.elements) <= 4 else f"{len(card.elements)} elements"


def _facts(card: ModelCard) -> str:
    facts = card.model_dump(
        mode="json", exclude={"name", "family", "description", "measured"}, exclude_none=True, exclude_defaults=True
    )
    return yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=100)


def _measured(card: ModelCard) -> Table:
    headings = ("property", "formula", "value", "unit", "conditions", "reference")
    table = Table(*headings, title="measured", title_justify="left")
    for entry in card.measured:
        references = "\n".join(f"{reference.source} {reference.value:g}" for reference in entry.reference)
        table.add_row(entry.property, entry.formula or "", f"{entry.value:g}", entry.unit, entry.conditions, references)
    return table
