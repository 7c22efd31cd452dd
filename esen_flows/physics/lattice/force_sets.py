"""Published force sets of phonopy and phono3py as our own documents, so that DFT data are treated by the same code."""

from pathlib import Path
from typing import Any

import numpy as np

from esen_flows.errors import InputError
from esen_flows.physics.lattice import phonopy_files
from esen_flows.physics.lattice.datasets import Dataset, ForceSet, Nac, first_order, is_random, without_forces
from esen_flows.schemas.lattice_documents import ForcesOutput


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
    found = _read(phonopy_files.read_phono3py, disp_yaml, forces_fc3, forces_fc2)
    if found.fc3 is None or found.fc3_matrix is None:
        raise InputError(f"{disp_yaml} holds no third-order displacements; give a phono3py_disp.yaml")
    fc3 = _split(found.fc3, disp_yaml, "FORCES_FC3")
    fc2 = first_order(*fc3) if found.fc2 is None else _split(found.fc2, disp_yaml, "FORCES_FC2")
    return _document(found, fc2, fc3), found.nac


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
    found = _read(phonopy_files.read_phonopy, disp_yaml, force_sets, born)
    if found.fc2 is None:
        raise InputError(f"{disp_yaml} holds no displacements; give its FORCE_SETS too")
    return _document(found, _split(found.fc2, disp_yaml, "FORCE_SETS"), None), found.nac


def _read(reader: Any, *files: Path | None) -> ForceSet:
    for file in files:
        if file is not None and not Path(file).is_file():
            raise InputError(f"no file {file}; give the path of a file that phonopy or phono3py wrote")
    try:
        return reader(*files)
    except Exception as error:  # the readers raise errors of every kind
        names = ", ".join(str(file) for file in files if file is not None)
        raise InputError(f"{names} cannot be read as a phonopy or phono3py calculation: {error}") from error


def _split(dataset: Dataset, file: Path, forces_file: str) -> tuple[Dataset, np.ndarray]:
    bare, forces = without_forces(dataset)
    if forces is None:
        raise InputError(f"{file} holds no forces; give its {forces_file} too")
    return bare, forces


def _document(found: ForceSet, fc2: tuple[Dataset, np.ndarray], fc3: tuple[Dataset, np.ndarray] | None) -> ForcesOutput:
    return ForcesOutput(
        unitcell=found.unitcell,
        supercell_matrix_fc3=found.fc3_matrix,
        supercell_matrix_fc2=found.fc2_matrix,
        primitive_matrix=found.primitive_matrix,
        displacement_angstrom=_distance(fc2[0]),
        symprec_angstrom=found.symprec_angstrom,
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
