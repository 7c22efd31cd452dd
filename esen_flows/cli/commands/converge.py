"""`esen-flows converge phonon | kappa FILE`: how much an answer depends on what was chosen, one choice at a time.

Every point is an ordinary stored result with its own key: a study that was interrupted goes on, and points that
property commands have asked for before are there already. Meshes share their forces.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer
from rich.console import Console
from rich.table import Table

from esen_flows.cli.commands.properties import (
    DEFAULT_MODEL,
    Born,
    Device,
    DtypeOption,
    File,
    Model,
    Output,
    ProtocolName,
    Set,
    Submit,
    check_folder,
    refuse_output,
)
from esen_flows.cli.documents import interruptible, run_or_load
from esen_flows.cli.overrides import UsageError, with_overrides
from esen_flows.cli.property_request import Dtype, PropertyRequest, build_request, vary_request
from esen_flows.errors import EsenFlowsError, ModelError, NotDifferentiableError
from esen_flows.schemas.protocols import ConductivityProtocol, principal_conductivity

if TYPE_CHECKING:
    from esen_flows.plots.convergence import Series

Property = Literal["phonon", "kappa"]
# The choices that are varied unless --vary says otherwise: field of the protocol, and values from coarse to fine.
Choice = tuple[str, tuple[str, ...]]
_DISPLACEMENTS: Choice = ("displacement.displacement_angstrom", ("0.05", "0.03", "0.02", "0.01", "0.005", "0.003"))
_DERIVATIVES: Choice = ("displacement.force_constants", ("finite_displacement", "autodiff"))
_DTYPES: Choice = ("dtype", ("float32", "float64"))
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

Vary = Annotated[
    list[str] | None,
    typer.Option(
        "--vary",
        metavar="FIELD=V1:V2",
        help="What to vary: a field of the protocol or dtype, and its values; repeatable. A single number for mesh "
        "divides all axes. Default: all that decides the answer.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("converge")(converge)


def converge(
    what: Annotated[Property, typer.Argument(help="phonon: highest frequency; kappa: conductivity at 300 K.")],
    file: File,
    model: Model = DEFAULT_MODEL,
    set_: Set = None,
    vary: Vary = None,
    dtype: DtypeOption = None,
    device: Device = "cpu",
    output: Output = None,
    protocol: ProtocolName = "general",
    submit: Submit = False,
    born: Born = None,
) -> None:
    """Vary one choice at a time around a protocol; store every point, print and draw them."""
    kind: Literal["phonon", "conductivity"] = "phonon" if what == "phonon" else "conductivity"
    base = build_request(kind, file, model, set_ or [], dtype, device, protocol_name=protocol, born=born)
    asked = [parsed(text, what) for text in vary] if vary else CHOICES[what]
    studies = [(name, points_of(base, name, values, default=not vary)) for name, values in asked]
    if submit:
        from esen_flows.cli.submission import submit_requests

        refuse_output(output)
        submit_requests([request for _, points in studies for _, request in points])
        return
    from esen_flows.plots.convergence import plot_convergence

    check_folder(output or Path("results"))
    field, unit = quantity(base)
    with interruptible():
        series = [_measured(name, points, field, base) for name, points in studies if points]
        key = base.steps[-1].key
        folder = output or Path("results") / f"{base.atoms.get_chemical_formula(empirical=True)}-converge-{key[:8]}"
        _print(series, field, unit)
        figure = plot_convergence(series, f"{field} ({unit})", base.model.label, key, folder / f"converge_{what}.png")
    typer.echo(f"wrote    {figure}")


def quantity(base: PropertyRequest) -> tuple[str, str]:
    """Field of the summary that is looked at, and its unit: of a conductivity RTA's, or that of the first method."""
    if not isinstance(base.protocol, ConductivityProtocol):
        return "max_frequency_thz", "THz"
    return principal_conductivity(base.protocol.methods), "W/m/K"


def parsed(text: str, what: Property) -> Choice:
    """A choice as --vary says it; without values, those of the default study.

    Raises
    ------
    UsageError
        no such default, or a value missing.
    """
    name, separator, values = text.partition("=")
    name = name.strip()
    if not separator:
        defaults = {full.rpartition(".")[2]: (full, own) for full, own in CHOICES[what]}
        found = defaults.get(name.rpartition(".")[2])
        if found is None:
            raise UsageError(f"--vary {name}: give its values, {name}=V1:V2, or take one of {', '.join(defaults)}")
        return found
    parts = tuple(part.strip() for part in values.split(":") if part.strip())
    if len(parts) < 2:
        raise UsageError(f"--vary {text!r}: at least two values, such as {name}=V1:V2, separated by colons")
    return name, parts


def points_of(
    base: PropertyRequest, name: str, values: tuple[str, ...], default: bool
) -> list[tuple[str, PropertyRequest]]:
    """Questions that differ from the base in one choice.

    Parameters
    ----------
    default
        whether nobody named this choice: what the force field has no way to vary is then left out.

    Raises
    ------
    UsageError
        a field or value that the protocol or the force field does not have.
    NotDifferentiableError
        exact derivatives were asked for by name, and there are none.
    """
    if name == "dtype":
        if default and base.model.dtype is not None:
            return []
        return [(value, vary_request(base, dtype=_precision(value))) for value in values]
    if name.endswith("force_constants"):
        if default and not _is_differentiable(base):
            return []
        base.model.require_differentiable("varying force_constants")
    points = []
    for value in values:
        given = f"{value},{value},{value}" if name == "mesh" and value.isdigit() else value
        points.append(
            (value, vary_request(base, protocol=with_overrides(base.protocol, [f"{name}={given}"], "--vary")))
        )
    return points


def _precision(value: str) -> Dtype:
    if value not in get_args(Dtype):
        raise UsageError(f"--vary dtype: {value!r} is none of {', '.join(get_args(Dtype))}")
    return cast(Dtype, value)


def _is_differentiable(base: PropertyRequest) -> bool:
    try:
        base.model.require_differentiable("autodiff")
    except NotDifferentiableError:
        return False
    return True


def _measured(name: str, points: list[tuple[str, PropertyRequest]], field: str, base: PropertyRequest) -> "Series":
    """The quantity at every point; where there is none, the reason (an unstable crystal, say) is told and kept."""
    from esen_flows.plots.convergence import Series

    found: list[float | None] = []
    for value, request in points:
        try:
            number = run_or_load(request)[-1].summary.get(field)
            found.append(float(number) if isinstance(number, int | float) else None)
        except ModelError:
            raise
        except EsenFlowsError as error:
            if not error.final:
                raise
            typer.echo(f"{name}={value}: {type(error).__name__}: {error}", err=True)
            found.append(None)
    own = base.steps[-1].key
    chosen = next((index for index, (_, request) in enumerate(points) if request.steps[-1].key == own), None)
    return Series(name, tuple(value for value, _ in points), tuple(found), chosen)


def _print(series: "list[Series]", field: str, unit: str) -> None:
    """One row a point, with its distance from the last one of its series."""
    table = Table("choice", "value", f"{field} ({unit})", "from the last (%)")
    for one in series:
        last = one.numbers[-1]
        for index, (value, number) in enumerate(zip(one.values, one.numbers, strict=True)):
            mark = " (base)" if index == one.chosen else ""
            off = "" if number is None or not last else f"{100 * (number / last - 1):+.2f}"
            table.add_row(one.name.rpartition(".")[2], value + mark, "none" if number is None else f"{number:.4f}", off)
        table.add_section()
    Console().print(table)
