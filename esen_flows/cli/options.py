"""Options and arguments that several commands share: an annotated type for each, with its help text."""

from pathlib import Path
from typing import Annotated, Any

import typer

from esen_flows.cli import completion
from esen_flows.cli.property_request import Dtype
from esen_flows.durations import parse_duration
from esen_flows.schemas.lattice_versions import TransportBackend
from esen_flows.units import FrequencyUnit

DEFAULT_MODEL = "esen_silicon"


def duration_option(meaning: str) -> Any:
    """An option that takes a duration as `durations.parse_duration` reads it, and gives seconds.

    Parameters
    ----------
    meaning
        Help text.

    Returns
    -------
    Any
        The option, for an annotation.
    """
    return typer.Option(parser=_seconds, metavar="TIME", help=meaning)


def _seconds(value: object) -> float:
    """Seconds of what was typed, or of the default, which typer hands over too."""
    try:
        return parse_duration(str(value))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


# Of the property commands and of `converge`.
FileArgument = Annotated[
    Path, typer.Argument(help="CIF, POSCAR, extended XYZ or another format that ASE reads. FILE@3 takes frame 3.")
]


ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Model card (esen-flows models) or .safetensors file.",
        autocompletion=completion.model_names,
    ),
]
ModelArgument = Annotated[
    str,
    typer.Argument(help="Model card (esen-flows models) or .safetensors file.", autocompletion=completion.model_names),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Set a field of the protocol, e.g. mesh=9,9,9 (list: esen-flows fields). Repeatable.",
        autocompletion=completion.assignments,
    ),
]
DtypeOption = Annotated[Dtype | None, typer.Option(help="Precision of the force calls.", show_default="float64")]
DeviceOption = Annotated[str, typer.Option(help="Device of the force calls: cpu, cuda or cuda:1.")]
CompileOption = Annotated[
    bool, typer.Option("--compile", help="Use torch.compile: slow to start, faster on GPUs. Part of the result key.")
]
Tf32Option = Annotated[
    bool,
    typer.Option("--tf32", help="Round float32 factors to 10 bits on GPUs, for screening. Part of the result key."),
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder for figures and structures.", show_default="results/FORMULA-KEY"),
]
UnitOption = Annotated[
    FrequencyUnit, typer.Option("--unit", help="Unit of frequencies in tables and figures; results are stored in THz.")
]
SubmitOption = Annotated[bool, typer.Option("--submit", help="Compute nothing here: submit the jobs for workers.")]
ProtocolOption = Annotated[
    str,
    typer.Option(
        help="Protocol that --set changes: general, or a published one (phonons: mdr; kappa: phonondb-v1, "
        "phonondb-v1-two-stage; audit: quick, full, published).",
        autocompletion=completion.protocols,
    ),
]
ForcesOption = Annotated[
    str | None,
    typer.Option(
        "--forces",
        metavar="KIND",
        help="conservative (default); direct: those of direct heads; md also mts(M), e.g. mts(8): direct ones, "
        "corrected in every M-th step. Part of the key.",
    ),
]
SymmetryOption = Annotated[
    str | None,
    typer.Option(
        "--symmetry",
        metavar="TEXT",
        help="Average forces over rotations, project them on the space group: octahedral, icosahedral+inversion, "
        "lebedev:14x9, random:32:7, project. Part of the key.",
    ),
]
BornOption = Annotated[
    Path | None,
    typer.Option(
        help="Born charges of a polar crystal: phonopy_params.yaml, or BORN in the order and orientation of FILE."
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Compute supercells of unusual size without asking back.")]
LatticeBackendOption = Annotated[
    TransportBackend,
    typer.Option(
        "--lattice-backend", help="Linewidths by this package (native) or by phono3py (Rust). Part of the key."
    ),
]

# Of `query` and `db export`.
ChemsysOption = Annotated[str | None, typer.Option(help="Exactly these elements, e.g. Ga-As.")]
FormulaOption = Annotated[str | None, typer.Option(help="Chemical formula, e.g. GaAs.")]
ElementsOption = Annotated[str | None, typer.Option(help="At least these elements, e.g. Si,O.")]
SpacegroupOption = Annotated[str | None, typer.Option(help="Space group of the input structure, e.g. 227 or Fd-3m.")]
LabelOption = Annotated[str | None, typer.Option("--model", help="Label or key of the force field.")]
CampaignOption = Annotated[str | None, typer.Option(help="Results of this campaign.")]

# Of the `campaign` commands.
CampaignArgument = Annotated[str, typer.Argument(help="Name of the campaign (see: esen-flows campaign list).")]
QuickOption = Annotated[bool, typer.Option("--quick", help="The same as --protocol quick, the default.")]
FullOption = Annotated[bool, typer.Option("--full", help="The same as --protocol full.")]
