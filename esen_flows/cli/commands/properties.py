"""`esen-flows relax | phonon | kappa FILE`: the stored answer if there is one, else compute it.

A stored answer needs neither torch nor jobflow nor phonopy: the key of the last step follows from the file, the model
card and the protocol. What computing needs is imported by `cli.run`.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

from esen_flows.cli.documents import interruptible, run_or_load
from esen_flows.cli.output.report import print_report
from esen_flows.cli.overrides import UsageError
from esen_flows.cli.property_request import Dtype, PropertyRequest, build_request
from esen_flows.errors import InputError
from esen_flows.schemas.documents import ResultDocument

DEFAULT_MODEL = "esen_silicon"

File = Annotated[Path, typer.Argument(help="CIF, POSCAR, extended XYZ or what else ASE reads; FILE@3 takes frame 3.")]
Model = Annotated[str, typer.Option("--model", "-m", help="A model card (esen-flows models) or a .safetensors file.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="A field of the protocol, e.g. mesh=9,9,9; repeatable."),
]
DtypeOption = Annotated[Dtype | None, typer.Option("--dtype", help="Precision of force calls.", show_default="float64")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:1.")]
Compile = Annotated[
    bool, typer.Option("--compile", help="torch.compile the network: slow to start, faster on GPUs; part of the key.")
]
Tf32 = Annotated[
    bool, typer.Option("--tf32", help="float32 products on GPUs rounded to 10 bits, for screening; part of the key.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder for figures.", show_default="results/FORMULA-KEY")
]
Submit = Annotated[
    bool, typer.Option("--submit", help="Compute nothing here: add the jobs to the launchpad, for rlaunch to run.")
]
ProtocolName = Annotated[
    str,
    typer.Option(
        "--protocol",
        help="general, or published: mdr of phonons; phonondb-v1, phonondb-v1-two-stage of kappa. --set comes after.",
    ),
]

Born = Annotated[
    Path | None,
    typer.Option(
        "--born",
        help="Born charges of a polar crystal: phonopy_params.yaml, or BORN in the order and orientation of FILE.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("relax")(relax)
    app.command("phonon")(phonon)
    app.command("kappa")(kappa)


def relax(
    file: File,
    model: Model = DEFAULT_MODEL,
    set_: Set = None,
    dtype: DtypeOption = None,
    device: Device = "cpu",
    compile_: Compile = False,
    tf32: Tf32 = False,
    output: Output = None,
    submit: Submit = False,
) -> None:
    """Relax positions and cell."""
    request = build_request("relax", file, model, set_ or [], dtype, device, compile=compile_, tf32=tf32)
    _answer(request, output, submit)


def phonon(
    file: File,
    model: Model = DEFAULT_MODEL,
    set_: Set = None,
    dtype: DtypeOption = None,
    device: Device = "cpu",
    compile_: Compile = False,
    tf32: Tf32 = False,
    output: Output = None,
    submit: Submit = False,
    protocol: ProtocolName = "general",
    born: Born = None,
) -> None:
    """Harmonic phonons: bands, density of states, thermal properties, stability."""
    request = build_request(
        "phonon", file, model, set_ or [], dtype, device, compile=compile_, tf32=tf32, protocol_name=protocol, born=born
    )
    _answer(request, output, submit)


def kappa(
    file: File,
    model: Model = DEFAULT_MODEL,
    set_: Set = None,
    dtype: DtypeOption = None,
    device: Device = "cpu",
    compile_: Compile = False,
    tf32: Tf32 = False,
    output: Output = None,
    submit: Submit = False,
    protocol: ProtocolName = "general",
    born: Born = None,
) -> None:
    """Lattice thermal conductivity: relaxation-time approximation and Wigner transport."""
    request = build_request(
        "conductivity", file, model, set_ or [], dtype, device, compile=compile_, tf32=tf32, protocol_name=protocol,
        born=born,
    )  # fmt: skip
    _answer(request, output, submit)


def _answer(request: PropertyRequest, output: Path | None, submit: bool) -> None:
    if submit:
        from esen_flows.cli.submission import submit_request

        refuse_output(output)
        submit_request(request)
        return
    check_folder(output or Path("results"))
    with interruptible():
        documents = run_or_load(request)
        answer = documents[-1]
        folder = output or Path("results") / f"{answer.formula}-{answer.key[:8]}"
        try:
            files = _files(answer, folder)
        except OSError as error:
            print_report(documents)
            raise InputError(
                f"the result above is stored, but files cannot be written to {folder} ({error.strerror or error}); "
                "make room, or give the same command another --output"
            ) from error
        print_report(documents, files)


def _files(answer: ResultDocument, folder: Path) -> list[Path]:
    """Figures and structures of a result, those that are missing made now."""
    from esen_flows.cli.output.artefacts import artefact_paths, write_artefacts
    from esen_flows.store.connection import open_store

    paths = artefact_paths(answer, folder)
    if not all(path.exists() for path in paths):
        complete = open_store().get(answer.key)
        if complete is not None:
            write_artefacts(complete, folder)
    return paths


def refuse_output(output: Path | None) -> None:
    """Nothing is drawn when something is submitted."""
    if output is not None:
        raise UsageError("--output: of no meaning with --submit; later, the same command without --submit draws")


def check_folder(folder: Path, option: str = "--output") -> None:
    """Refuse a folder that cannot be made, before and not after the computation; `option` names another one."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {folder}: {existing} is not a folder that you may write to; use {option}")
