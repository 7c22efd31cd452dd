"""Readers of the files of phonopy and phono3py: displacements, forces, Born charges."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from phono3py.file_IO import parse_FORCES_FC2, parse_FORCES_FC3
from phono3py.interface.phono3py_yaml import read_phono3py_yaml
from phonopy.file_IO import parse_BORN, parse_FORCE_SETS
from phonopy.interface.phonopy_yaml import read_phonopy_yaml

from esen_flows.physics.lattice.adapter import ase_atoms, new_phonopy, phonopy_atoms, primitive_cell
from esen_flows.physics.lattice.datasets import ForceSet, Nac
from esen_flows.schemas.documents import StructureData
from esen_flows.schemas.lattice_versions import LATTICE_BACKEND

SYMPREC_ANGSTROM = 1e-5  # phonopy's default, with which published displacements were made


def read_phono3py(disp_yaml: Path, forces_fc3: Path | None, forces_fc2: Path | None) -> ForceSet:
    """A third-order calculation from the files of phono3py.

    Parameters
    ----------
    disp_yaml
        phono3py_disp.yaml, or a phono3py_params.yaml(.xz) that holds forces.
    forces_fc3, forces_fc2
        FORCES_FC3 and FORCES_FC2, where the yaml file holds no forces.

    Returns
    -------
    ForceSet
        The calculation.
    """
    data = read_phono3py_yaml(disp_yaml)
    if data.dataset is not None and forces_fc3 is not None:
        parse_FORCES_FC3(data.dataset, forces_fc3)
    if data.phonon_dataset is not None and forces_fc2 is not None:
        parse_FORCES_FC2(data.phonon_dataset, forces_fc2)
    return _force_set(data, data.phonon_supercell_matrix, data.supercell_matrix, data.phonon_dataset, data.dataset)


def read_phonopy(disp_yaml: Path, force_sets: Path | None, born: Path | None) -> ForceSet:
    """A second-order calculation from the files of phonopy.

    Parameters
    ----------
    disp_yaml
        phonopy_disp.yaml, or a phonopy_params.yaml(.xz) that holds forces.
    force_sets, born
        FORCE_SETS and BORN, where the yaml file does not hold their contents.

    Returns
    -------
    ForceSet
        The calculation.
    """
    data = read_phonopy_yaml(disp_yaml)
    natom = len(data.unitcell) * round(abs(np.linalg.det(data.supercell_matrix)))
    dataset = data.dataset if force_sets is None else parse_FORCE_SETS(force_sets, natom=natom)
    found = _force_set(data, data.supercell_matrix, None, dataset, None)
    if born is None:
        return found
    harmonic = new_phonopy(found.unitcell, found.fc2_matrix, found.primitive_matrix, found.symprec_angstrom)
    return replace(found, nac=dict(parse_BORN(harmonic.primitive, symprec=found.symprec_angstrom, filename=born)))


def read_born(atoms: Atoms, born: Path, symprec_angstrom: float) -> tuple[Atoms, Nac]:
    """The contents of a BORN file, spread over equivalent atoms.

    Parameters
    ----------
    atoms
        Unit cell of the calculation.
    born
        BORN file.
    symprec_angstrom
        Distance tolerance of the symmetry in Angstrom.

    Returns
    -------
    tuple[Atoms, Nac]
        The primitive cell, and Born charges and dielectric tensor for it.
    """
    primitive = primitive_cell(atoms, symprec_angstrom)
    cell = phonopy_atoms(StructureData.from_atoms(primitive))
    return primitive, dict(parse_BORN(cell, symprec=symprec_angstrom, filename=born, lang=LATTICE_BACKEND))


def read_born_yaml(params: Path, symprec_angstrom: float) -> tuple[Atoms, Nac]:
    """The `nac_params` of a yaml file of phonopy or phono3py.

    Parameters
    ----------
    params
        The yaml file.
    symprec_angstrom
        Distance tolerance of the symmetry in Angstrom.

    Returns
    -------
    tuple[Atoms, Nac]
        The primitive cell, and its `nac_params`; empty where the file has none.
    """
    data = read_phonopy_yaml(params)
    cell = StructureData.from_atoms(ase_atoms(data.unitcell))
    phonon = new_phonopy(cell, np.eye(3, dtype=int), _primitive_matrix(data), symprec_angstrom)
    return ase_atoms(phonon.primitive), dict(data.nac_params or {})


def _primitive_matrix(data: Any) -> Any:
    return "auto" if data.primitive_matrix is None else data.primitive_matrix


def _force_set(data: Any, fc2_matrix: Any, fc3_matrix: Any, fc2: Any, fc3: Any) -> ForceSet:
    cell = StructureData.from_atoms(ase_atoms(data.unitcell))
    matrix = fc3_matrix if fc2_matrix is None else fc2_matrix
    phonon = new_phonopy(cell, matrix, _primitive_matrix(data), SYMPREC_ANGSTROM)
    return ForceSet(
        unitcell=cell,
        primitive_matrix=np.array(phonon.primitive_matrix),
        fc2_matrix=np.array(matrix),
        fc3_matrix=None if fc3_matrix is None else np.array(fc3_matrix),
        fc2=fc2,
        fc3=fc3,
        nac=None if data.nac_params is None else dict(data.nac_params),
        symprec_angstrom=SYMPREC_ANGSTROM,
    )
