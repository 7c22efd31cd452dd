"""`esen-flows export PROGRAM KEY`: stored phonons and conductivities as files of phonopy and phono3py."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from esen_flows.cli.commands.results import one_result, parents_of
from esen_flows.cli.store import open_store
from esen_flows.cli.usage import check_folder
from esen_flows.errors import InputError

if TYPE_CHECKING:
    from esen_flows.schemas.documents import ResultDocument
    from esen_flows.schemas.lattice_documents import ForcesOutput
    from esen_flows.store.results import Store

_KINDS = {"phonopy": "phonon", "phono3py": "conductivity"}
_COMMANDS = {"phonopy": "phonon", "phono3py": "kappa"}
ProgramArgument = Annotated[
    Literal["phonopy", "phono3py"], typer.Argument(help="phonopy takes phonons, phono3py conductivities.")
]
KeyArgument = Annotated[str, typer.Argument(help="Result key, or at least its first four digits.")]
FolderOption = Annotated[Path, typer.Option("--output", "-o", help="Folder for the files; it is made if needed.")]


def export(program: ProgramArgument, key: KeyArgument, output: FolderOption) -> None:
    """Write the stored forces, force constants and spectra of a result as files that phonopy or phono3py reads."""
    from esen_flows.makers.compute import raise_if_failed

    store = open_store()
    document = one_result(store, key, load_arrays=True)
    if document.kind != _KINDS[program]:
        raise InputError(
            f"{key} is a result of kind {document.kind}; {program} takes one of kind {_KINDS[program]}: list them "
            f"with: esen-flows query {_COMMANDS[program]}"
        )
    raise_if_failed(document)
    forces = _forces_of(store, document)
    check_folder(output)
    output.mkdir(parents=True, exist_ok=True)
    for file in _write(document, forces, output):
        typer.echo(f"wrote    {file}")
    if forces.force_constants == "autodiff":
        typer.echo("the force constants came from exact Hessians, without forces: no FORCE_SETS or FORCES files")


def _forces_of(store: "Store", document: "ResultDocument") -> "ForcesOutput":
    """The displaced forces from which a result was made."""
    from esen_flows.schemas.lattice_documents import ForcesOutput

    keys = [parent.key for parent in parents_of(store, document) if parent.kind == "forces"]
    found = store.get(keys[-1]) if keys else None
    if found is None or found.output is None:
        raise InputError(
            f"the displaced forces of {document.key[:12]}, which hold its supercells, are not in this database; "
            "compute the result again here"
        )
    return ForcesOutput.model_validate(found.output)


def _write(document: "ResultDocument", forces: "ForcesOutput", folder: Path) -> list[Path]:
    from esen_flows.physics.lattice.export import write_phono3py_files, write_phonopy_files
    from esen_flows.schemas.born_charges import BornCharges
    from esen_flows.schemas.lattice_documents import ConductivityOutput, PhononOutput

    charges = document.protocol.get("born")
    born = None if charges is None else BornCharges.model_validate(charges)
    if document.kind == "phonon":
        return write_phonopy_files(forces, PhononOutput.model_validate(document.output), born, folder)
    return write_phono3py_files(forces, ConductivityOutput.model_validate(document.output), born, folder)
