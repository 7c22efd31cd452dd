"""Files of phonopy and phono3py, read within limits and without making any object that they name.

The packages' own readers of YAML files construct what a tag such as `!!python/object/apply` names: a file could run
commands. Here the file is first read as plain values, which the packages then take instead of the file.
"""

from pathlib import Path
from typing import Any

import numpy as np
from phono3py.interface.phono3py_yaml import load_phono3py_yaml
from phonopy.interface.phonopy_yaml import load_phonopy_yaml

from esen_flows.errors import InputError
from esen_flows.files import read_at_most
from esen_flows.physics.lattice.masses import ase_atoms
from esen_flows.structures.checks import check_structure
from esen_flows.yaml_files import read_yaml

# Forces of some thousand displaced supercells of some hundred atoms, three numbers and a list for each atom.
MOST_BYTES, MOST_VALUES = 1_000_000_000, 20_000_000
MOST_SUPERCELL_ATOMS = 20_000
_MATRICES = ("supercell_matrix", "phonon_supercell_matrix")
MOST_TEXT_BYTES = 1_000_000_000  # of FORCES_FC3; a BORN file has some kilobytes


def read_phonopy_file(path: Path) -> Any:
    """The contents of a YAML file of phonopy, which may be compressed.

    Parameters
    ----------
    path
        phonopy_disp.yaml, phonopy_params.yaml or the like (.gz, .bz2, .xz).

    Returns
    -------
    Any
        phonopy's `PhonopyYamlData`.

    Raises
    ------
    InputError
        The file cannot be read, is not YAML of plain values, or has no unit cell or an impossible one.
    """
    return _checked(load_phonopy_yaml(_fields(path)), path)


def read_phono3py_file(path: Path) -> Any:
    """The contents of a YAML file of phono3py, which may be compressed.

    Parameters
    ----------
    path
        phono3py_disp.yaml, phono3py_params.yaml or the like (.gz, .bz2, .xz).

    Returns
    -------
    Any
        phono3py's `Phono3pyYamlData`.

    Raises
    ------
    InputError
        The file cannot be read, is not YAML of plain values, or has no unit cell or an impossible one.
    """
    return _checked(load_phono3py_yaml(_fields(path)), path)


def check_text_file(path: Path) -> bytes:
    """The content of a text file; refused where it is larger, decompressed, than any that phonopy or phono3py writes.

    Parameters
    ----------
    path
        BORN, FORCE_SETS, FORCES_FC2 or FORCES_FC3.

    Returns
    -------
    bytes
        The content, decompressed.

    Raises
    ------
    InputError
        The file cannot be read, or is larger.
    """
    return read_at_most(path, MOST_TEXT_BYTES)


def _fields(path: Path) -> dict[str, Any]:
    fields = read_yaml(path, MOST_BYTES, MOST_VALUES)
    if not isinstance(fields, dict):
        raise InputError(f"{path} holds no fields such as `unit_cell:`; give a file that phonopy or phono3py wrote")
    for name in _MATRICES:
        if fields.get(name) is not None:
            _check_integers(fields[name], f"{path}: {name}")
    return fields


def _checked(data: Any, path: Path) -> Any:
    """Contents whose cells phonopy can take: its compiled code ends the process where they are vast or flat."""
    if data.unitcell is None:
        raise InputError(f"{path} holds no unit cell (`unit_cell:`); give a file that phonopy or phono3py wrote")
    check_structure(ase_atoms(data.unitcell), str(path))
    for name in _MATRICES:
        matrix = getattr(data, name, None)
        if matrix is not None:
            _check_size(np.asarray(matrix, dtype=float), len(data.unitcell), f"{path}: {name}")
    if data.primitive_matrix is not None and not isinstance(data.primitive_matrix, str):
        primitive = np.asarray(data.primitive_matrix, dtype=float)
        if primitive.shape != (3, 3) or not 1e-4 < np.linalg.det(primitive) <= 1.0 + 1e-8:
            raise InputError(f"{path}: primitive_matrix is no 3 x 3 matrix of a primitive cell; correct the file")
    return data


def _check_integers(value: Any, name: str) -> None:
    """Refuse what phonopy would round: it takes 2.5 for 2."""
    try:
        matrix = np.asarray(value, dtype=float)
    except (ValueError, TypeError):
        matrix = np.zeros(0)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or (matrix != np.rint(matrix)).any():
        raise InputError(f"{name} is no 3 x 3 matrix of integers; correct the file")


def _check_size(matrix: np.ndarray, n_atoms: int, name: str) -> None:
    n_cells = abs(float(np.linalg.det(matrix)))
    if not 0.5 < n_cells <= MOST_SUPERCELL_ATOMS / n_atoms:
        raise InputError(
            f"{name} makes supercells of {n_cells:g} unit cells with {n_atoms} atoms each; at least one unit cell and "
            f"at most {MOST_SUPERCELL_ATOMS} atoms are read"
        )
