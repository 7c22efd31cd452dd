"""`esen-flows converge phonon | kappa FILE`: how much a result depends on each choice, varied one at a time.

Every point is an ordinary stored result with its own key: an interrupted study continues, and points that property
commands have computed are not computed again. Meshes share their forces.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

import typer
from rich.table import Column, Table

from esen_flows.cli import completion, options
from esen_flows.cli.commands.properties import DRAWN_LATER
from esen_flows.cli.output.json_output import JsonOption, print_json
from esen_flows.cli.output.tables import show
from esen_flows.cli.overrides import with_overrides
from esen_flows.cli.property_request import Dtype, PropertyRequest, build_request, vary_request
from esen_flows.cli.run_or_load import interruptible, run_or_load
from esen_flows.cli.usage import UsageError, check_folder, refuse_ignored
from esen_flows.errors import EsenFlowsError, ModelError, NotDifferentiableError
from esen_flows.schemas.property_lookup import entry_of, kind_named

if TYPE_CHECKING:
    from esen_flows.plots.convergence import Series

Property = Literal["phonon", "kappa"]
Choice = tuple[str, tuple[str, ...]]  # field of the protocol, and its values from coarse to fine
# A choice varied, with the request of each value.
Study = tuple[str, list[tuple[str, PropertyRequest]]]
_DISPLACEMENTS: Choice = ("displacement.displacement_angstrom", ("0.05", "0.03", "0.02", "0.01", "0.005", "0.003"))
_DERIVATIVES: Choice = ("displacement.force_constants", ("finite_displacement", "autodiff"))
_DTYPES: Choice = ("dtype", ("float32", "float64"))
# Varied unless --vary is given.
CHOICES: dict[str, tuple[Choice, ...]] = {
    "phonon": (
        _DISPLACEMENTS, ("displacement.fc2_min_length_angstrom", ("8", "11", "15", "20")),
        _DERIVATIVES, _DTYPES,
    ),
    "kappa": (
        ("mesh", ("7", "9", "11", "13", "15", "17", "19")), _DISPLACEMENTS,
        ("displacement.fc3_min_length_angstrom", ("6", "10", "14")),
        ("displacement.fc2_min_length_angstrom", ("10", "15", "20")), _DERIVATIVES, _DTYPES,
    ),
}  # fmt: skip

VaryOption = Annotated[
    list[str] | None,
    typer.Option(
        "--vary",
        metavar="FIELD=V1:V2",
        help="Field of the protocol (or dtype) to vary, and its values. A single number for mesh divides all axes. "
        "Repeatable. Default: everything that the result depends on.",
        autocompletion=completion.assignments,
    ),
]


def converge(
    what: Annotated[Property, typer.Argument(help="phonon: highest frequency. kappa: its value near 300 K.")],
    file: options.FileArgument,
    model: options.ModelOption = options.DEFAULT_MODEL,
    set_: options.SetOption = None,
    vary: VaryOption = None,
    dtype: options.DtypeOption = None,
    device: options.DeviceOption = "cpu",
    output: options.OutputOption = None,
    protocol: options.ProtocolOption = "general",
    submit: options.SubmitOption = False,
    born: options.BornOption = None,
    yes: options.YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Vary one choice of a protocol at a time; store, print and plot every point."""
    kind = kind_named(what)
    base = build_request(kind, file, model, set_ or [], dtype, device, protocol_name=protocol, born=born)
    choices = [parse_choice(text, what) for text in vary] if vary else CHOICES[what]
    studies = [(name, _points(base, name, values, by_default=not vary)) for name, values in choices]
    if submit:
        from esen_flows.cli.submission import submit_requests

        refuse_ignored({"--output": output, "--json": as_json}, "with --submit", DRAWN_LATER)
        submit_requests([request for _, points in studies for _, request in points])
        return
    from esen_flows.plots.convergence import plot_convergence
    from esen_flows.plots.style import formula_text

    check_folder(output or Path("results"))
    field, quantity = _quantity(base)
    with interruptible():
        measured = [_measure(study, field, base, yes) for study in studies if study[1]]
        series = [one.series for one in measured]
        key = base.steps[-1].key
        if as_json:
            print_json({"field": field, "key": key, "choices": [one.content() for one in measured]})
            if output is None:
                return
        folder = output or Path("results") / f"{base.atoms.get_chemical_formula(empirical=True)}-converge-{key[:8]}"
        _print(measured, quantity)
        subject = f"{formula_text(base.atoms.get_chemical_formula(empirical=True))}  ·  {base.model.label}"
        label = f"κ{quantity[5:]}" if quantity.startswith("kappa") else quantity[:1].upper() + quantity[1:]
        figure = plot_convergence(series, label, subject, key, folder / f"converge_{what}.png")
    typer.echo(f"wrote    {figure}")


def _quantity(base: PropertyRequest) -> tuple[str, str]:
    """Field of the summary that is studied, and its name with temperature and unit."""
    entry = entry_of(base.kind)
    field = entry.principal(base.protocol)
    value = entry.field(field)
    temperatures = getattr(base.protocol, "temperatures_kelvin", (300.0,))
    nearest = min(temperatures, key=lambda kelvin: abs(kelvin - 300.0))
    return field, f"{value.label.format(temperature_kelvin=nearest)} ({value.unit})"


def parse_choice(text: str, what: Property) -> Choice:
    """A choice as --vary gives it; without values, those of the default study.

    Parameters
    ----------
    text
        `FIELD=V1:V2:...` or `FIELD`, where the field may lack the name of the nested protocol.
    what
        Property that is studied.

    Returns
    -------
    Choice
        Full name of the field, and its values.

    Raises
    ------
    UsageError
        The field has no default values, or fewer than two values are given.

    Examples
    --------
    >>> parse_choice("mesh=9:11:13", "kappa")
    ('mesh', ('9', '11', '13'))
    >>> parse_choice("fc2_min_length_angstrom", "phonon")
    ('displacement.fc2_min_length_angstrom', ('8', '11', '15', '20'))
    """
    name, separator, values = text.partition("=")
    name = name.strip()
    if not separator:
        defaults = {field.rpartition(".")[2]: (field, values) for field, values in CHOICES[what]}
        found = defaults.get(name.rpartition(".")[2])
        if found is None:
            raise UsageError(f"--vary {name}: give its values, {name}=V1:V2, or choose one of {', '.join(defaults)}")
        return found
    parts = tuple(part.strip() for part in values.split(":") if part.strip())
    if len(parts) < 2:
        raise UsageError(f"--vary {text!r}: give at least two values, separated by colons, such as {name}=V1:V2")
    return name, parts


def _points(
    base: PropertyRequest, name: str, values: tuple[str, ...], *, by_default: bool
) -> list[tuple[str, PropertyRequest]]:
    """A request for each value of a choice; none for a default choice that the force field cannot vary."""
    if name == "dtype":
        if by_default and base.model.dtype is not None:
            return []
        if wrong := set(values) - set(get_args(Dtype)):
            raise UsageError(f"--vary dtype: {min(wrong)!r} is not one of {', '.join(get_args(Dtype))}")
        return [(value, vary_request(base, dtype=cast(Dtype, value))) for value in values]
    if name.endswith("force_constants"):
        try:
            base.model.require_differentiable("varying force_constants")
        except NotDifferentiableError:
            if by_default:
                return []
            raise
    points = []
    for value in values:
        given = f"{value},{value},{value}" if name == "mesh" and value.isdigit() else value
        protocol = with_overrides(base.protocol, [f"{name}={given}"], "--vary")
        points.append((value, vary_request(base, protocol=protocol)))
    return points


@dataclass(frozen=True)
class _Measured:
    """A series with the key of each point, and whether the point was stored before."""

    series: "Series"
    keys: list[str]
    stored: list[bool]

    def content(self) -> dict[str, Any]:
        """The series for `--json`."""
        one = self.series
        return {
            "field": one.name, "values": one.values, "numbers": one.numbers, "base": one.chosen,
            "keys": self.keys, "from_database": self.stored,
        }  # fmt: skip


def _measure(study: Study, field: str, base: PropertyRequest, yes: bool) -> _Measured:
    """The quantity at every point; where a point failed for good (an unstable crystal, say) the reason is printed."""
    from esen_flows.plots.convergence import Series

    name, points = study
    numbers: list[float | None] = []
    stored: list[bool] = []
    for value, request in points:
        number, known = None, False
        try:
            answer = run_or_load(request, yes=yes)
            number, known = answer.documents[-1].summary.get(field), answer.documents[-1].key in answer.stored
        except ModelError:  # of the force field, hence the same at every point
            raise
        except EsenFlowsError as error:
            if not error.final:
                raise
            typer.echo(f"{name}={value}: {type(error).__name__}: {error}", err=True)
        numbers.append(float(number) if isinstance(number, int | float) else None)
        stored.append(known)
    keys = [request.steps[-1].key for _, request in points]
    base_key = base.steps[-1].key
    chosen = keys.index(base_key) if base_key in keys else None
    return _Measured(Series(name, tuple(value for value, _ in points), tuple(numbers), chosen), keys, stored)


def _print(measured: list[_Measured], quantity: str) -> None:
    """One row per point, with its distance from the last point of its series."""
    known = [stored for one in measured for stored in one.stored]
    table = Table("choice", "value", Column(quantity, justify="right"), Column("from the last (%)", justify="right"))
    table.caption = f"{sum(known)} of {len(known)} points from the database" if any(known) else None
    for one in (each.series for each in measured):
        last = one.numbers[-1]
        for index, (value, number) in enumerate(zip(one.values, one.numbers, strict=True)):
            mark = " (base)" if index == one.chosen else ""
            off = "" if number is None or not last else f"{100 * (number / last - 1):+.2f}"
            table.add_row(one.name.rpartition(".")[2], value + mark, "none" if number is None else f"{number:.4f}", off)
        table.add_section()
    show(table)
