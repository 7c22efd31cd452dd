"""`esen-flows relax | phonon | kappa FILE`: the stored answer if there is one, else compute it.

A stored answer needs neither torch nor jobflow nor phonopy: the key of the last step follows from the file, the model
card and the protocol. What computing needs is imported by `cli.run`.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from esen_flows.cli.overrides import UsageError
from esen_flows.cli.questions import Dtype, Question, ask
from esen_flows.cli.report import print_report
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
    typer.Option("--protocol", help="general, or published: phonondb-v1, phonondb-v1-two-stage; --set comes after."),
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
    question = ask("relax", file, model, set_ or [], dtype, device, compile=compile_, tf32=tf32)
    _answer(question, output, submit)


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
) -> None:
    """Harmonic phonons: bands, density of states, thermal properties, stability."""
    question = ask("phonon", file, model, set_ or [], dtype, device, compile=compile_, tf32=tf32)
    _answer(question, output, submit)


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
) -> None:
    """Lattice thermal conductivity: relaxation-time approximation and Wigner transport."""
    assignments = set_ or []
    question = ask(
        "conductivity", file, model, assignments, dtype, device, compile=compile_, tf32=tf32, protocol_name=protocol
    )
    _answer(question, output, submit)


def _answer(question: Question, output: Path | None, submit: bool) -> None:
    if submit:
        from esen_flows.cli.submission import submit_question

        if output is not None:
            raise UsageError("--output: of no meaning with --submit; later, the same command without --submit draws")
        submit_question(question)
        return
    _check_folder(output or Path("results"))
    with _interruptible():
        documents = _documents(question)
        answer = documents[-1]
        folder = output or Path("results") / f"{answer.formula}-{answer.key[:8]}"
        print_report(documents, _files(answer, folder))


def _documents(question: Question) -> list[ResultDocument]:
    """What is stored for each step, after computing what is missing; large arrays are left in the store.

    Raises
    ------
    EsenFlowsError : a step failed, now or before.
    """
    from esen_flows.makers.compute import raise_if_failed
    from esen_flows.store.connection import open_store

    store = open_store()
    stored = [store.get(step.key, load_arrays=False) for step in question.steps]
    if not _settled(stored[-1]):
        for parent in stored[:-1]:
            if parent is not None and _settled(parent):
                raise_if_failed(parent)
        from esen_flows.cli.run import run

        run(question, store)
        stored = [store.get(step.key, load_arrays=False) for step in question.steps]
    documents = [document for document in stored if document is not None]
    raise_if_failed(documents[-1])
    return documents


def _settled(document: ResultDocument | None) -> bool:
    """Whether asking again would change nothing: finished, or failed for good."""
    return document is not None and (document.failure is None or document.failure.final)


def _files(answer: ResultDocument, folder: Path) -> list[Path]:
    """Figures and structures of a result, those that are missing made now."""
    from esen_flows.cli.artefacts import artefact_paths, write_artefacts
    from esen_flows.store.connection import open_store

    paths = artefact_paths(answer, folder)
    if not all(path.exists() for path in paths):
        complete = open_store().get(answer.key)
        if complete is not None:
            write_artefacts(complete, folder)
    return paths


def _check_folder(folder: Path) -> None:
    """Refuse an output folder that cannot be made, before and not after the computation."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {folder}: {existing} is not a folder that you may write to; use --output")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM leave through the claims' own clean-up, with a word on what to do next."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt:
        print(
            "esen-flows: interrupted; finished steps are stored, the same command goes on from there", file=sys.stderr
        )
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, previous)
