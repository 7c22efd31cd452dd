"""Objects of phonopy and phono3py from our own structures and documents, and what depends on these objects alone.

Names, defaults and result keys of phonopy and phono3py change between versions, so that they are used in this folder
only. Written for version 4.8 of both. Our arrays and documents are in eV, Angstrom and THz.

Conventions, the same for force fields and for published force sets:

- A systematic displacement dataset is solved by finite differences (phono3py's "traditional" solver), then translation
  and permutation symmetry are imposed (`symmetrize_fc2`, `symmetrize_fc3`; the symfc projector, which costs more, gives
  the conductivities of DFT silicon and NaCl to 1e-6). A random dataset is solved by symfc.
- Force constants are compact: the first index runs over the atoms of the primitive cell.
- Linewidths come from the tetrahedron method. Its weights are averaged over degenerate bands: otherwise they depend on
  the choice of eigenvectors in a degenerate subspace, and 1e-10 eV/Angstrom^2 in the force constants moves the
  conductivity of DFT NaCl by 0.3 % (with the average by 1e-9). They are also averaged over the symmetry-equivalent ways
  to cut tetrahedra: otherwise turning tetragonal CuAu in space moves its conductivity on a 4 x 4 x 3 mesh by 1.5 %
  (averaged: 1e-12).
- Acoustic modes at Gamma are set to zero. A frequency of 1.02e-4 THz instead would pass phono3py's cutoff of 1e-4 THz
  and scatter: DFT silicon then has 9 W/m/K.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import phono3py
from ase import Atoms
from phono3py import Phono3py
from phonopy import Phonopy
from phonopy.phonon.mesh import MeshSymmetryFallbackWarning
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.cells import PrimitiveMatrixAutoDefaultWarning
from phonopy.structure.symmetry import symmetrize_borns_and_epsilon

from esen_flows.errors import InputError
from esen_flows.physics.lattice.datasets import Dataset, DisplacementPlan, DisplacementPlans, is_random, plain
from esen_flows.physics.lattice.masses import ase_atoms, phonopy_atoms
from esen_flows.schemas.documents import StructureData
from esen_flows.schemas.lattice_documents import ForcesOutput
from esen_flows.schemas.lattice_versions import LATTICE_BACKEND

PHONO3PY_VERSION: str = phono3py.__version__


@contextmanager
def without_known_warnings() -> Iterator[None]:
    """A context without phonopy's warnings about choices that are made on purpose here and change no number.

    Yields
    ------
    None
        Nothing.
    """
    with warnings.catch_warnings():
        for category in (PrimitiveMatrixAutoDefaultWarning, MeshSymmetryFallbackWarning):
            warnings.filterwarnings("ignore", category=category)
        yield


@contextmanager
def symmetric_mesh(mesh: Sequence[int]) -> Iterator[None]:
    """A context that explains phonopy's error about a mesh that the symmetry of the crystal does not leave invariant.

    Parameters
    ----------
    mesh
        Divisions of the reciprocal lattice vectors.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    InputError
        The mesh breaks the symmetry.
    """
    try:
        yield
    except RuntimeError as error:
        if "symmetry is broken" not in str(error):
            raise
        raise InputError(
            f"mesh {tuple(mesh)} breaks the symmetry of the reciprocal lattice; divide equivalent axes of the "
            "primitive cell equally"
        ) from error


@without_known_warnings()
def new_phonopy(cell: StructureData, matrix: Any, primitive_matrix: Any, symprec_angstrom: float) -> Phonopy:
    """A phonopy object without forces.

    Parameters
    ----------
    cell
        Unit cell.
    matrix
        (3, 3) supercell matrix.
    primitive_matrix
        (3, 3) primitive matrix, or "auto".
    symprec_angstrom
        Distance tolerance of the symmetry in Angstrom.

    Returns
    -------
    Phonopy
        The object.
    """
    atoms, symprec = phonopy_atoms(cell), symprec_angstrom
    return Phonopy(atoms, matrix, primitive_matrix, symprec=symprec, log_level=0, lang=LATTICE_BACKEND)


@without_known_warnings()
def new_phono3py(
    cell: StructureData, fc3_matrix: Any, fc2_matrix: Any, primitive_matrix: Any, symprec_angstrom: float
) -> Phono3py:
    """A phono3py object without forces.

    Parameters
    ----------
    cell
        Unit cell.
    fc3_matrix
        (3, 3) supercell matrix of the third order.
    fc2_matrix
        (3, 3) supercell matrix of the second order; None: that of the third order.
    primitive_matrix
        (3, 3) primitive matrix, or "auto".
    symprec_angstrom
        Distance tolerance of the symmetry in Angstrom.

    Returns
    -------
    Phono3py
        The object.
    """
    return Phono3py(
        phonopy_atoms(cell),
        fc3_matrix,
        primitive_matrix,
        phonon_supercell_matrix=fc2_matrix,
        symprec=symprec_angstrom,
        log_level=0,
        lang=LATTICE_BACKEND,
    )


def given_primitive_matrix(data: Any) -> Any:
    """The primitive matrix of a yaml file, for `new_phonopy`.

    Parameters
    ----------
    data
        Contents of a yaml file of phonopy or phono3py.

    Returns
    -------
    Any
        (3, 3) matrix, or "auto" where the file has none.
    """
    return "auto" if data.primitive_matrix is None else data.primitive_matrix


def solver_of(dataset: Dataset) -> str:
    """The solver of force constants for a displacement dataset.

    Parameters
    ----------
    dataset
        Systematic or random dataset.

    Returns
    -------
    str
        Its name in phonopy.
    """
    return "symfc" if is_random(dataset) else "traditional"


def plan_displacements(
    unitcell: Atoms,
    fc2_matrix: np.ndarray,
    fc3_matrix: np.ndarray | None,
    displacement_angstrom: float,
    symprec_angstrom: float,
    pair_cutoff_angstrom: float | None = None,
    primitive_matrix: str = "auto",
) -> DisplacementPlans:
    """Symmetry-reduced displacements of the second order, and of the third order if `fc3_matrix` is given.

    Parameters
    ----------
    unitcell
        Cell that the supercell matrices refer to.
    fc2_matrix, fc3_matrix
        (3, 3) supercell matrices.
    displacement_angstrom
        Length of the displacements in Angstrom.
    symprec_angstrom
        Distance tolerance of the symmetry in Angstrom.
    pair_cutoff_angstrom
        Largest distance of two atoms that are displaced together, in Angstrom; None: no limit.
    primitive_matrix
        Centring of the unit cell, such as "F"; "auto", the default, lets phonopy find it.

    Returns
    -------
    DisplacementPlans
        The displaced supercells of both orders.
    """
    cell = StructureData.from_atoms(unitcell)
    if fc3_matrix is None:
        harmonic = new_phonopy(cell, fc2_matrix, primitive_matrix, symprec_angstrom)
        harmonic.generate_displacements(distance=displacement_angstrom)
        plan = _plan(harmonic.dataset, harmonic.supercell, harmonic.supercells_with_displacements, cell)
        return DisplacementPlans(np.array(harmonic.primitive_matrix), ase_atoms(harmonic.primitive, cell), plan, None)
    separate = not np.array_equal(fc2_matrix, fc3_matrix)
    anharmonic = new_phono3py(cell, fc3_matrix, fc2_matrix if separate else None, primitive_matrix, symprec_angstrom)
    anharmonic.generate_displacements(distance=displacement_angstrom, cutoff_pair_distance=pair_cutoff_angstrom)
    fc2 = None
    if separate:
        displaced = anharmonic.phonon_supercells_with_displacements
        fc2 = _plan(anharmonic.phonon_dataset, anharmonic.phonon_supercell, displaced, cell)
    fc3 = _plan(anharmonic.dataset, anharmonic.supercell, anharmonic.supercells_with_displacements, cell)
    return DisplacementPlans(np.array(anharmonic.primitive_matrix), ase_atoms(anharmonic.primitive, cell), fc2, fc3)


def _plan(dataset: Any, perfect: PhonopyAtoms, supercells: Any, unitcell: StructureData) -> DisplacementPlan:
    # phono3py gives None for a pair beyond the cutoff.
    displaced = [ase_atoms(cell, unitcell) for cell in supercells if cell is not None]
    return DisplacementPlan(plain(dataset), ase_atoms(perfect, unitcell), displaced)


def primitive_cell(atoms: Atoms, symprec_angstrom: float) -> Atoms:
    """The primitive cell that phonopy finds for a unit cell, in the order and orientation of that cell.

    Parameters
    ----------
    atoms
        Unit cell.
    symprec_angstrom
        Distance tolerance of the symmetry in Angstrom.

    Returns
    -------
    Atoms
        The primitive cell.
    """
    cell = StructureData.from_atoms(atoms)
    phonon = new_phonopy(cell, np.eye(3, dtype=int), "auto", symprec_angstrom)
    return ase_atoms(phonon.primitive, cell)


def primitive_of(forces: ForcesOutput) -> Atoms:
    """The primitive cell of the force constants that follow from displaced forces, found without computing them.

    Parameters
    ----------
    forces
        Displaced forces.

    Returns
    -------
    Atoms
        The primitive cell.
    """
    matrix = forces.supercell_matrix_fc2
    phonon = new_phonopy(forces.unitcell, matrix, forces.primitive_matrix, forces.symprec_angstrom)
    return ase_atoms(phonon.primitive, forces.unitcell)


def symmetric_born(
    primitive: Atoms, charges: np.ndarray, dielectric: np.ndarray, symprec_angstrom: float
) -> tuple[np.ndarray, np.ndarray]:
    """Born charges and dielectric tensor averaged over the space group, the charges without their mean.

    Parameters
    ----------
    primitive
        Primitive cell.
    charges
        (n, 3, 3) Born charges in e.
    dielectric
        (3, 3) dielectric tensor.
    symprec_angstrom
        Distance tolerance of the symmetry in Angstrom.

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        Charges (n, 3, 3) and dielectric tensor (3, 3).
    """
    cell = phonopy_atoms(StructureData.from_atoms(primitive))
    with warnings.catch_warnings():
        # The caller compares charges before and after with a tolerance of its own.
        warnings.filterwarnings("ignore", message="Symmetry of Born effective charge")
        found = symmetrize_borns_and_epsilon(charges, dielectric, cell, symprec=symprec_angstrom, lang=LATTICE_BACKEND)
    return np.array(found[0]), np.array(found[1])
