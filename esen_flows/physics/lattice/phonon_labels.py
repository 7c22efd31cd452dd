"""Training data from a phonon calculation: displaced supercells with forces, and force constants."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from phonopy.harmonic.force_constants import compact_fc_to_full_fc
from phonopy.structure.cells import Primitive

from esen_flows.data.labelled import LabelledStructure
from esen_flows.errors import InputError
from esen_flows.files import sha256_of_file
from esen_flows.forcefield.contract import ForceField
from esen_flows.physics.lattice.adapter import new_phonopy, solver_of
from esen_flows.physics.lattice.datasets import with_forces
from esen_flows.physics.lattice.force_sets import read_phonopy_forces
from esen_flows.physics.lattice.masses import ase_atoms
from esen_flows.physics.lattice.recipe_phonons import written_crystals
from esen_flows.schemas.keys import sha256_of
from esen_flows.schemas.lattice_documents import ForcesOutput
from esen_flows.training.curvature import ForceConstants
from esen_flows.units import THZ_PER_ROOT_CURVATURE

_NAMES = ("phonopy_disp.yaml", "phonopy_params.yaml", "phonopy.yaml")


@dataclass(frozen=True)
class PhononLabels:
    """A phonon calculation as training data.

    Attributes
    ----------
    force_constants
        The perfect supercell with symmetrised force constants.
    displacements
        (k, n, 3) displacements of the displaced supercells in Angstrom.
    forces
        (k, n, 3) their forces in eV/Angstrom.
    primitive
        phonopy's primitive cell, which knows the translations of the supercell.
    """

    force_constants: ForceConstants
    displacements: np.ndarray
    forces: np.ndarray
    primitive: Primitive

    def structures(self, energy_ev: float) -> list[LabelledStructure]:
        """The perfect and the displaced supercells with labels.

        Calculations of phonons keep forces and no energies. The energy of a displacement u with forces F is taken to
        be -u.F/2 above that of the perfect supercell, which is exact for harmonic crystals.

        Parameters
        ----------
        energy_ev
            Energy of the perfect supercell in eV.

        Returns
        -------
        list[LabelledStructure]
            Records without stress.
        """
        perfect, missing = self.force_constants.supercell, np.full((3, 3), np.nan)
        name = perfect.get_chemical_formula(empirical=True)
        found = [LabelledStructure(perfect, energy_ev, np.zeros((len(perfect), 3)), missing, "perfect", name)]
        for displacement, forces in zip(self.displacements, self.forces, strict=True):
            atoms = perfect.copy()
            atoms.positions += displacement
            energy = energy_ev - 0.5 * float((displacement * forces).sum())
            found.append(LabelledStructure(atoms, energy, forces, missing, "displaced", name))
        return found

    def frequencies_thz(self) -> np.ndarray:
        """Frequencies at the points that the supercell holds, without LO-TO splitting.

        Returns
        -------
        np.ndarray
            (3n,) in THz, ascending, imaginary ones negative.
        """
        return _frequencies(self.force_constants.supercell, self.force_constants.values)


def read_phonon_labels(path: Path) -> PhononLabels:
    """Training data from the files of phonopy.

    Parameters
    ----------
    path
        phonopy_params.yaml or phonopy_disp.yaml, with FORCE_SETS beside it where it holds no forces, or their folder.

    Returns
    -------
    PhononLabels
        Forces and force constants.

    Raises
    ------
    InputError
        There is no such file, or it cannot be read.
    """
    file = _file_of(path)
    if file is None:
        raise InputError(f"{path} has none of {', '.join(_NAMES)}; give the path of a YAML file of phonopy")
    force_sets = file.with_name("FORCE_SETS")
    forces, _ = read_phonopy_forces(file, force_sets if force_sets.is_file() else None)
    labels = _labels(forces)
    source = sha256_of([sha256_of_file(each) for each in (file, force_sets) if each.is_file()])
    return replace(labels, force_constants=replace(labels.force_constants, source=source))


def read_force_constants(path: Path) -> list[ForceConstants]:
    """Force constants of one phonon calculation, or of many.

    Parameters
    ----------
    path
        As for `read_phonon_labels`, or a folder with one folder for each calculation.

    Returns
    -------
    list[ForceConstants]
        Force constants, by the names of the folders.

    Raises
    ------
    InputError
        There is no such file or folder, it cannot be read, or `esen-flows label --phonons` has not finished it or has
        not made all of its folders.
    """
    if _file_of(path) is not None:
        return [read_phonon_labels(path).force_constants]
    folders = sorted(each for each in path.iterdir() if each.is_dir() and _file_of(each)) if path.is_dir() else []
    if (names := written_crystals(path)) is not None:
        found = {folder.name for folder in folders}
        if missing := [name for name in names if name not in found]:
            raise InputError(f"{path} lacks phonons of {', '.join(missing)}; run esen-flows label --phonons again")
        if others := sorted(found - set(names)):
            raise InputError(
                f"{path} also holds {', '.join(others)}, which are not crystals of the labelling that made it; move "
                "them elsewhere, or delete them"
            )
    if not folders:
        raise InputError(
            f"neither {path} nor a folder in it has one of {', '.join(_NAMES)}; give a phonon calculation of phonopy, "
            "or a folder of them, such as `esen-flows label --phonons` writes"
        )
    return [read_phonon_labels(folder).force_constants for folder in folders]


def _file_of(path: Path) -> Path | None:
    """The YAML file of a phonon calculation; None: a folder has none."""
    if not path.is_dir():
        return path if path.exists() else None
    return next((path / name for name in _NAMES if (path / name).is_file()), None)


def _labels(forces: ForcesOutput) -> PhononLabels:
    phonon = new_phonopy(forces.unitcell, forces.supercell_matrix_fc2, forces.primitive_matrix, forces.symprec_angstrom)
    phonon.dataset = with_forces(forces.displacements_fc2, forces.forces_fc2)
    solver = solver_of(forces.displacements_fc2)
    phonon.produce_force_constants(calculate_full_force_constants=True, fc_calculator=solver, show_drift=False)
    phonon.symmetrize_force_constants(level=3, show_drift=False)
    supercell = ase_atoms(phonon.supercell)
    displaced = [ase_atoms(cell) for cell in phonon.supercells_with_displacements]
    moved = [find_mic(atoms.positions - supercell.positions, supercell.cell)[0] for atoms in displaced]
    constants = ForceConstants(supercell, np.array(phonon.force_constants))
    return PhononLabels(constants, np.array(moved), forces.forces_fc2, phonon.primitive)


def model_frequencies_thz(force_field: ForceField, labels: PhononLabels) -> np.ndarray:
    """Frequencies of a force field at the structure of a phonon calculation, from its exact Hessian.

    Parameters
    ----------
    force_field
        Force field with second derivatives.
    labels
        The phonon calculation.

    Returns
    -------
    np.ndarray
        (3n,) frequencies of the supercell in THz, ascending, imaginary ones negative; without LO-TO splitting.
    """
    supercell, primitive = labels.force_constants.supercell, labels.primitive
    compact = force_field.hessian(supercell, rows=primitive.p2s_map.tolist())
    return _frequencies(supercell, compact_fc_to_full_fc(primitive, compact))


def _frequencies(atoms: Atoms, hessian: np.ndarray) -> np.ndarray:
    n, masses = len(atoms), np.repeat(atoms.get_masses(), 3)
    matrix = hessian.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n) / np.sqrt(np.outer(masses, masses))
    squares = np.linalg.eigvalsh((matrix + matrix.T) / 2.0)
    return np.sign(squares) * np.sqrt(np.abs(squares)) * THZ_PER_ROOT_CURVATURE
