"""`esen-flows export FORMAT KEY`: stored results as files of phonopy and phono3py, and relaxed structures."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from esen_flows.cli.commands.results import one_result, parents_of
from esen_flows.cli.output.listing import file_formula
from esen_flows.cli.store import open_store
from esen_flows.cli.usage import check_folder
from esen_flows.errors import InputError
from esen_flows.files import written_whole
from esen_flows.schemas.documents import StructureData
from esen_flows.schemas.property_lookup import entry_of

if TYPE_CHECKING:
    from esen_flows.schemas.documents import ResultDocument
    from esen_flows.schemas.lattice_documents import ForcesOutput
    from esen_flows.store.results import Store

_KINDS = {"phonopy": "phonon", "phono3py": "conductivity"}
_COMMANDS = {"phonopy": "phonon", "phono3py": "kappa"}
FormatArgument = Annotated[
    Literal["phonopy", "phono3py", "cif", "poscar", "extxyz"],
    typer.Argument(
        metavar="FORMAT",
        help="phonopy (of phonons), phono3py (of conductivities); cif, poscar or extxyz of the relaxed structure.",
    ),
]
KeyArgument = Annotated[str, typer.Argument(help="Result key, or at least its first four digits.")]
FolderOption = Annotated[Path, typer.Option("--output", "-o", help="Folder for the files; it is made if needed.")]


def export(form: FormatArgument, key: KeyArgument, output: FolderOption) -> None:
    """Write the forces, force constants and spectra of a result for phonopy or phono3py, or its relaxed structure."""
    from esen_flows.makers.compute import raise_if_failed

    store = open_store()
    document = one_result(store, key, load_arrays=True)
    raise_if_failed(document)
    check_folder(output)
    remark = ""
    files: Iterable[Path]
    if form in _KINDS:
        if document.kind != _KINDS[form]:
            raise InputError(
                f"{key} is a result of kind {document.kind}; {form} takes one of kind {_KINDS[form]}: list them "
                f"with: esen-flows query {_COMMANDS[form]}"
            )
        forces = _forces_of(store, document)
        output.mkdir(parents=True, exist_ok=True)
        files = _write(document, forces, output)
        if forces.force_constants == "autodiff":
            remark = "the force constants came from exact Hessians, without forces: no FORCE_SETS or FORCES files"
    else:
        files = [_write_structure(_relaxed(store, document), form, output)]
    for file in files:
        typer.echo(f"wrote    {file}")
    if remark:
        typer.echo(remark)


def _relaxed(store: "Store", document: "ResultDocument") -> "ResultDocument":
    """The result itself if it has a structure in the cell of the input, else the relaxation that it began with.

    Phonons and conductivities have a primitive cell of their own.
    """
    candidates = (step for step in (document, *parents_of(store, document)) if step.kind in ("relax", "static", "md"))
    first = next(candidates, None)
    found = first if first is None or first is document else store.get(first.key)
    if found is None or found.output is None:
        raise InputError(f"{document.key[:12]}, a result of kind {document.kind}, has no relaxed structure here")
    return found


def _write_structure(document: "ResultDocument", form: str, folder: Path) -> Path:
    from esen_flows.structures.export import write_crystal, write_frames

    assert document.output is not None  # `_relaxed` gives no other
    atoms = StructureData(**document.output[entry_of(document.kind).structure]).to_atoms()
    name = f"{file_formula(document)}-{document.key[:16]}"
    path = folder / (f"POSCAR-{name}" if form == "poscar" else f"{name}.{form}")
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        if form == "extxyz":
            write_frames(temporary, [atoms])
        else:
            write_crystal(temporary, atoms, "cif" if form == "cif" else "vasp", str(path))
    return path


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
