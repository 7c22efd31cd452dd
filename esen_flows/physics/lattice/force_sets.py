"""Published force sets of phonopy and phono3py as our own documents, so that DFT data are treated by the same code."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from phono3py.file_IO import parse_FORCES_FC2, parse_FORCES_FC3
from phonopy.file_IO import parse_BORN, parse_FORCE_SETS

from esen_flows.errors import InputError
from esen_flows.physics.lattice.adapter import given_primitive_matrix, new_phonopy
from esen_flows.physics.lattice.datasets import Dataset, Nac, first_order, is_random, without_forces
from esen_flows.physics.lattice.files import check_text_file, read_phono3py_file, read_phonopy_file
from esen_flows.physics.lattice.masses import ase_atoms
from esen_flows.schemas.documents import StructureData
from esen_flows.schemas.lattice_documents import ForcesOutput

SYMPREC_ANGSTROM = 1e-5  # phonopy's default, with which published displacements were made
_Forces = tuple[Dataset, np.ndarray]  # a dataset without forces, and its forces


def read_phono3py_forces(
    disp_yaml: Path, forces_fc3: Path | None = None, forces_fc2: Path | None = None
) -> tuple[ForcesOutput, Nac | None]:
    """Third-order forces of a phono3py calculation, with its non-analytical correction.

    Parameters
    ----------
    disp_yaml
        phono3py_disp.yaml, or phono3py_params.yaml (.xz, .gz, .bz2) that holds displacements and forces.
    forces_fc3, forces_fc2
        FORCES_FC3 and FORCES_FC2, where the yaml file holds no forces.

    Returns
    -------
    tuple[ForcesOutput, Nac | None]
        The forces, and the correction where the calculation has one.

    Raises
    ------
    InputError
        A file is missing or cannot be read, or forces are missing.
    """
    with _readable(disp_yaml, forces_fc3, forces_fc2):
        data = read_phono3py_file(disp_yaml)
        if data.dataset is not None and forces_fc3 is not None:
            parse_FORCES_FC3(data.dataset, forces_fc3)
        if data.phonon_dataset is not None and forces_fc2 is not None:
            parse_FORCES_FC2(data.phonon_dataset, forces_fc2)
        matrix = data.supercell_matrix if data.phonon_supercell_matrix is None else data.phonon_supercell_matrix
        if data.dataset is None or data.supercell_matrix is None:
            raise InputError(f"{disp_yaml} holds no third-order displacements; give a phono3py_disp.yaml")
        harmonic = _harmonic(data, matrix)
        fc3 = _split(data.dataset, disp_yaml, "FORCES_FC3")
        fc2 = first_order(*fc3) if data.phonon_dataset is None else _split(data.phonon_dataset, disp_yaml, "FORCES_FC2")
        return _document(data, harmonic, matrix, fc2, fc3), _nac(data)


def read_phonopy_forces(
    disp_yaml: Path, force_sets: Path | None = None, born: Path | None = None
) -> tuple[ForcesOutput, Nac | None]:
    """Second-order forces of a phonopy calculation, with its non-analytical correction.

    Parameters
    ----------
    disp_yaml
        phonopy_disp.yaml, or phonopy_params.yaml (.xz, .gz, .bz2) that holds displacements and forces.
    force_sets, born
        FORCE_SETS and BORN, where the yaml file does not hold their contents.

    Returns
    -------
    tuple[ForcesOutput, Nac | None]
        The forces, and the correction where the calculation has one.

    Raises
    ------
    InputError
        A file is missing or cannot be read, or forces are missing.
    """
    with _readable(disp_yaml, force_sets, born):
        data = read_phonopy_file(disp_yaml)
        if data.supercell_matrix is None:
            raise InputError(f"{disp_yaml} holds no supercell_matrix; give a phonopy_disp.yaml")
        natom = len(data.unitcell) * round(abs(np.linalg.det(data.supercell_matrix)))
        dataset = data.dataset if force_sets is None else parse_FORCE_SETS(force_sets, natom=natom)
        harmonic, nac = _harmonic(data, data.supercell_matrix), _nac(data)
        if born is not None:
            nac = dict(parse_BORN(harmonic.primitive, symprec=SYMPREC_ANGSTROM, filename=born))
        if dataset is None:
            raise InputError(f"{disp_yaml} holds no displacements; give its FORCE_SETS too")
        forces = _split(dataset, disp_yaml, "FORCE_SETS")
        return _document(data, harmonic, data.supercell_matrix, forces, None), nac


@contextmanager
def _readable(*files: Path | None) -> Iterator[None]:
    """A context in which every error of phonopy's readers becomes an InputError that names the files."""
    for file in files:
        if file is not None and not Path(file).is_file():
            raise InputError(f"no file {file}; give the path of a file that phonopy or phono3py wrote")
    try:
        for file in files[1:]:
            if file is not None:
                check_text_file(Path(file))
        yield
    except InputError:
        raise
    except Exception as error:  # the readers raise errors of every kind
        names = ", ".join(str(file) for file in files if file is not None)
        raise InputError(f"{names} cannot be read as a phonopy or phono3py calculation: {error}") from error


def _harmonic(data: Any, matrix: Any) -> Any:
    """A phonopy object with the cells of a file."""
    cell = StructureData.from_atoms(ase_atoms(data.unitcell))
    return new_phonopy(cell, matrix, given_primitive_matrix(data), SYMPREC_ANGSTROM)


def _nac(data: Any) -> Nac | None:
    return None if data.nac_params is None else dict(data.nac_params)


def _split(dataset: Dataset, file: Path, forces_file: str) -> _Forces:
    bare, forces = without_forces(dataset)
    if forces is None:
        raise InputError(f"{file} holds no forces; give its {forces_file} too")
    return bare, forces


def _document(data: Any, harmonic: Any, fc2_matrix: Any, fc2: _Forces, fc3: _Forces | None) -> ForcesOutput:
    return ForcesOutput(
        unitcell=StructureData.from_atoms(ase_atoms(data.unitcell)),
        supercell_matrix_fc3=np.array(data.supercell_matrix) if fc3 else None,
        supercell_matrix_fc2=np.array(fc2_matrix),
        primitive_matrix=np.array(harmonic.primitive_matrix),
        displacement_angstrom=_distance(fc2[0]),
        symprec_angstrom=SYMPREC_ANGSTROM,
        parity="as_is",
        parity_averaged=False,
        displacements_fc3=fc3[0] if fc3 else None,
        forces_fc3=fc3[1] if fc3 else None,
        displacements_fc2=fc2[0],
        forces_fc2=fc2[1],
        n_evaluations=0,
        seconds=0.0,
    )


def _distance(dataset: Dataset) -> float:
    """Length of the first displacement in Angstrom; mean length per atom in a random dataset."""
    if is_random(dataset):
        return float(np.linalg.norm(np.array(dataset["displacements"]), axis=-1).mean())
    return float(np.linalg.norm(dataset["first_atoms"][0]["displacement"]))
