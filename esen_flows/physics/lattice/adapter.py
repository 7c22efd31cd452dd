"""Every call of phonopy and phono3py. Their names, defaults and result keys change between versions: only here, and,
for the third order, in `anharmonic`.

In and out go our own arrays and documents, in eV, Angstrom, THz. Written for phonopy and phono3py 4.8.

Conventions, the same for force fields and for published force sets:

- A systematic displacement dataset is solved by finite differences (phono3py's "traditional" solver), then translation
  and permutation symmetry are imposed (`symmetrize_fc2`, `symmetrize_fc3`; the symfc projector, which costs more, gives
  the conductivities of DFT silicon and NaCl to 1e-6). A random dataset is solved by symfc.
- Force constants are compact: first index over the atoms of the primitive cell.
- Linewidths come from the tetrahedron method. Its weights are averaged over degenerate bands: otherwise they depend on
  which eigenvectors these happen to have, and 1e-10 eV/Angstrom^2 in the force constants moves the conductivity of DFT
  NaCl by 0.3 % (with the average by 1e-9). And they are averaged over the symmetry-equivalent ways to cut tetrahedra:
  otherwise turning tetragonal CuAu in space moves its conductivity on a 4 x 4 x 3 mesh by 1.5 % (averaged: 1e-12).
- Acoustic modes at Gamma are zero. One of 1.02e-4 THz instead would pass phono3py's cutoff of 1e-4 THz and scatter:
  DFT silicon then has 9 W/m/K.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import phono3py
import phonopy
from ase import Atoms
from ase.data import atomic_masses, chemical_symbols
from phono3py import Phono3py
from phono3py.file_IO import parse_FORCES_FC2, parse_FORCES_FC3
from phono3py.interface.phono3py_yaml import read_phono3py_yaml
from phonopy import Phonopy
from phonopy.file_IO import parse_BORN, parse_FORCE_SETS
from phonopy.harmonic.dynmat_to_fc import get_commensurate_points
from phonopy.interface.phonopy_yaml import read_phonopy_yaml
from phonopy.phonon.grid import BZGrid, get_ir_grid_points
from phonopy.phonon.mesh import MeshSymmetryFallbackWarning
from phonopy.phonon.spectrum import TetrahedronDOSAccumulator
from phonopy.structure.atomic_data import get_atomic_data
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.cells import PrimitiveMatrixAutoDefaultWarning
from phonopy.structure.symmetry import symmetrize_borns_and_epsilon

from esen_flows.errors import InputError
from esen_flows.physics.lattice.datasets import (
    Bands,
    Dataset,
    Densities,
    DisplacementPlan,
    ForceSet,
    Nac,
    Plans,
    Thermal,
    is_random,
    plain,
    with_forces,
)
from esen_flows.physics.lattice.modes import atom_shares
from esen_flows.schemas.documents import StructureData
from esen_flows.schemas.lattice_documents import ForcesOutput
from esen_flows.schemas.lattice_versions import LATTICE_BACKEND

PHONOPY_VERSION: str = phonopy.__version__
PHONO3PY_VERSION: str = phono3py.__version__
SYMPREC_ANGSTROM = 1e-5  # phonopy's default, with which published displacements were made
DOS_POINTS = 401
Q_POINTS_PER_CHUNK = 128


def plan_displacements(
    unitcell: Atoms,
    fc2_matrix: np.ndarray,
    fc3_matrix: np.ndarray | None,
    displacement_angstrom: float,
    symprec_angstrom: float,
    pair_cutoff_angstrom: float | None = None,
) -> Plans:
    """Symmetry-reduced displacements; for third order (fc3_matrix given) pairs of displaced atoms too."""
    if fc3_matrix is None:
        harmonic = _phonopy(StructureData.from_atoms(unitcell), fc2_matrix, "auto", symprec_angstrom)
        harmonic.generate_displacements(distance=displacement_angstrom)
        plan = _plan(harmonic.dataset, harmonic.supercell, harmonic.supercells_with_displacements)
        return Plans(np.array(harmonic.primitive_matrix), plan, None)
    separate = not np.array_equal(fc2_matrix, fc3_matrix)
    anharmonic = new_phono3py(
        StructureData.from_atoms(unitcell), fc3_matrix, fc2_matrix if separate else None, "auto", symprec_angstrom
    )
    anharmonic.generate_displacements(distance=displacement_angstrom, cutoff_pair_distance=pair_cutoff_angstrom)
    fc2 = None
    if separate:
        displaced = anharmonic.phonon_supercells_with_displacements
        fc2 = _plan(anharmonic.phonon_dataset, anharmonic.phonon_supercell, displaced)
    fc3 = _plan(anharmonic.dataset, anharmonic.supercell, anharmonic.supercells_with_displacements)
    return Plans(np.array(anharmonic.primitive_matrix), fc2, fc3)


def _plan(dataset: Any, perfect: PhonopyAtoms, supercells: Any) -> DisplacementPlan:
    # phono3py leaves None where a pair is beyond the cutoff.
    return DisplacementPlan(
        plain(dataset), ase_atoms(perfect), [ase_atoms(cell) for cell in supercells if cell is not None]
    )


def ase_atoms(cell: PhonopyAtoms) -> Atoms:
    return Atoms(numbers=cell.numbers, positions=cell.positions, cell=cell.cell, pbc=True)


def _phonopy_atoms(cell: StructureData) -> PhonopyAtoms:
    table = get_atomic_data().atom_data
    # phonopy has no masses of some radioactive elements, plutonium for one; ASE has those of long-lived isotopes.
    masses = [table[number][3] or atomic_masses[number] for number in cell.numbers]
    return PhonopyAtoms(numbers=cell.numbers, positions=cell.positions_angstrom, cell=cell.cell_angstrom, masses=masses)


def without_abundances(numbers: np.ndarray) -> list[str]:
    """Symbols of those elements that have no isotopes in nature, or none that phonopy knows."""
    symbols = [chemical_symbols[number] for number in np.unique(numbers)]
    return [symbol for symbol in symbols if not get_atomic_data().isotope_data.get(symbol)]


@contextmanager
def _on_purpose() -> Iterator[None]:
    """Silence what phonopy tells of choices that we make knowingly, and that change no number."""
    with warnings.catch_warnings():
        for category in (PrimitiveMatrixAutoDefaultWarning, MeshSymmetryFallbackWarning):
            warnings.filterwarnings("ignore", category=category)
        yield


@_on_purpose()
def _phonopy(cell: StructureData, matrix: Any, primitive_matrix: Any, symprec: float) -> Phonopy:
    return Phonopy(_phonopy_atoms(cell), matrix, primitive_matrix, symprec=symprec, log_level=0, lang=LATTICE_BACKEND)


@_on_purpose()
def new_phono3py(
    cell: StructureData, fc3_matrix: Any, fc2_matrix: Any, primitive_matrix: Any, symprec: float
) -> Phono3py:
    return Phono3py(
        _phonopy_atoms(cell),
        fc3_matrix,
        primitive_matrix,
        phonon_supercell_matrix=fc2_matrix,
        symprec=symprec,
        log_level=0,
        lang=LATTICE_BACKEND,
    )


@contextmanager
def symmetric_mesh(mesh: Sequence[int]) -> Iterator[None]:
    """Say what is wrong with a mesh that a crystal's symmetry does not map onto itself."""
    try:
        yield
    except RuntimeError as error:
        if "symmetry is broken" not in str(error):
            raise
        raise InputError(
            f"mesh {tuple(mesh)} breaks the symmetry of the reciprocal lattice; divide equivalent axes of the "
            "primitive cell equally"
        ) from error


def solver_of(dataset: Dataset) -> str:
    return "symfc" if is_random(dataset) else "traditional"


class Harmonic:
    """Second-order force constants and what follows from them."""

    def __init__(self, forces: ForcesOutput, nac: Nac | None = None) -> None:
        phonon = _phonopy(
            forces.unitcell, forces.supercell_matrix_fc2, forces.primitive_matrix, forces.symprec_angstrom
        )
        phonon.dataset = with_forces(forces.displacements_fc2, forces.forces_fc2)
        solver = solver_of(forces.displacements_fc2)
        phonon.produce_force_constants(calculate_full_force_constants=False, fc_calculator=solver, show_drift=False)
        if solver == "traditional":
            phonon.symmetrize_force_constants(level=3, show_drift=False)  # level 3: as phono3py's default
        if nac is not None:
            phonon.nac_params = nac
        self._phonon = phonon

    @property
    def primitive(self) -> Atoms:
        """The primitive cell."""
        return ase_atoms(self._phonon.primitive)

    @property
    def supercell_vectors(self) -> np.ndarray:
        """(3, 3) lattice vectors of the supercell in Angstrom."""
        return np.array(self._phonon.supercell.cell)

    @property
    def force_constants(self) -> np.ndarray:
        """(n_primitive, n_supercell, 3, 3) in eV/Angstrom^2."""
        return np.array(self._phonon.force_constants)

    def commensurate_points(self) -> np.ndarray:
        """(n, 3) q-points that the supercell holds exactly, so that nothing is interpolated there."""
        matrix = np.linalg.inv(self._phonon.primitive.primitive_matrix)  # the supercell in units of the primitive cell
        return np.array(get_commensurate_points(np.rint(matrix).astype(int)))

    def modes(self, q_points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Frequencies (n_q, n_bands) in THz and eigenvectors (n_q, 3 n_atoms, n_bands); negative means imaginary."""
        result = self._phonon.run_qpoints(q_points, with_eigenvectors=True)
        return np.array(result.frequencies), np.array(result.eigenvectors)

    def bands(self, paths: Sequence[np.ndarray]) -> Bands:
        """Frequencies along paths of q-points in reduced coordinates of the primitive cell."""
        result = self._phonon.run_band_structure(list(paths))
        return Bands([np.array(d) for d in result.distances], [np.array(f) for f in result.frequencies])

    def thermal(self, mesh: Sequence[int], temperatures: Sequence[float]) -> Thermal:
        """Thermal properties on phonopy's own mesh: shifted off Gamma where a division is even.

        The published MDR phonon data were sampled so; centred on Gamma, their 300 K entropy of BaTe moves by 0.015 %.
        """
        with _on_purpose():
            sampled = self._phonon.run_mesh(list(mesh))
        found = self._phonon.run_thermal_properties(temperatures=list(temperatures), exclude_gamma_acoustic=True)
        return Thermal(
            q_points=np.array(sampled.qpoints),
            frequencies=np.array(sampled.frequencies),
            free_energy=np.array(found.free_energy),
            entropy=np.array(found.entropy),
            heat_capacity=np.array(found.heat_capacity),
        )

    def densities(self, mesh: Sequence[int]) -> Densities:
        """Total and atom-projected densities of states on a Gamma-centred mesh, by the tetrahedron method.

        Only irreducible q-points are visited; phonopy's own projection visits all, to the same result.
        """
        symmetry = self._phonon.primitive_symmetry
        with symmetric_mesh(mesh):
            grid = BZGrid(
                list(mesh),
                lattice=self._phonon.primitive.cell,
                symmetry_dataset=symmetry.dataset,
                store_dense_gp_map=True,
                lang=LATTICE_BACKEND,
            )
        points, weights, grid_map = get_ir_grid_points(grid)
        q_points = np.array(grid.addresses[grid.grg2bzg[points]] @ grid.QDinv.T)
        frequencies, shares = [], []
        for first in range(0, len(q_points), Q_POINTS_PER_CHUNK):  # eigenvectors of a large cell fill the memory
            found, vectors = self.modes(q_points[first : first + Q_POINTS_PER_CHUNK])
            frequencies.append(found)
            shares.append(atom_shares(found, vectors, np.array(symmetry.dataset.equivalent_atoms)))
        sampled = np.concatenate(frequencies)
        result = TetrahedronDOSAccumulator(
            sampled,
            grid,
            mode_property=np.ascontiguousarray((np.concatenate(shares) * weights[:, None, None])[None]),
            ir_grid_points=points,
            ir_grid_map=grid_map,
            num_sampling_points=DOS_POINTS,
            symmetrize_tetrahedra=True,
            lang=LATTICE_BACKEND,
        ).result
        projected = np.array(result.density[0]).T
        return Densities(q_points, sampled, np.array(result.sampling_points), projected.sum(axis=0), projected)


def read_phono3py(disp_yaml: Path, forces_fc3: Path | None, forces_fc2: Path | None) -> ForceSet:
    """Read phono3py_disp.yaml with FORCES_FC3 (and FORCES_FC2), or a phono3py_params.yaml(.xz) that holds its own."""
    data = read_phono3py_yaml(disp_yaml)
    if data.dataset is not None and forces_fc3 is not None:
        parse_FORCES_FC3(data.dataset, forces_fc3)
    if data.phonon_dataset is not None and forces_fc2 is not None:
        parse_FORCES_FC2(data.phonon_dataset, forces_fc2)
    return _force_set(data, data.phonon_supercell_matrix, data.supercell_matrix, data.phonon_dataset, data.dataset)


def read_phonopy(disp_yaml: Path, force_sets: Path | None, born: Path | None) -> ForceSet:
    """Read phonopy_disp.yaml with FORCE_SETS and BORN, or a phonopy_params.yaml(.xz) that holds its own."""
    data = read_phonopy_yaml(disp_yaml)
    natom = len(data.unitcell) * round(abs(np.linalg.det(data.supercell_matrix)))
    dataset = data.dataset if force_sets is None else parse_FORCE_SETS(force_sets, natom=natom)
    found = _force_set(data, data.supercell_matrix, None, dataset, None)
    if born is None:
        return found
    harmonic = _phonopy(found.unitcell, found.fc2_matrix, found.primitive_matrix, found.symprec_angstrom)
    return replace(found, nac=dict(parse_BORN(harmonic.primitive, symprec=found.symprec_angstrom, filename=born)))


def primitive_cell(atoms: Atoms, symprec_angstrom: float) -> Atoms:
    """The primitive cell that phonopy finds for a unit cell, in the order and orientation of that."""
    return ase_atoms(
        _phonopy(StructureData.from_atoms(atoms), np.eye(3, dtype=int), "auto", symprec_angstrom).primitive
    )


def primitive_of(forces: ForcesOutput) -> Atoms:
    """The primitive cell of force constants made of these forces, without making them."""
    matrix = forces.supercell_matrix_fc2
    return ase_atoms(_phonopy(forces.unitcell, matrix, forces.primitive_matrix, forces.symprec_angstrom).primitive)


def read_born(atoms: Atoms, born: Path, symprec_angstrom: float) -> tuple[Atoms, Nac]:
    """The primitive cell of a unit cell, and what a BORN file says of it, spread over its equivalent atoms."""
    primitive = primitive_cell(atoms, symprec_angstrom)
    cell = _phonopy_atoms(StructureData.from_atoms(primitive))
    return primitive, dict(parse_BORN(cell, symprec=symprec_angstrom, filename=born, lang=LATTICE_BACKEND))


def read_born_yaml(params: Path, symprec_angstrom: float) -> tuple[Atoms, Nac]:
    """The primitive cell of a phonopy or phono3py yaml file and its `nac_params`; empty where it has none."""
    data = read_phonopy_yaml(params)
    cell, given = StructureData.from_atoms(ase_atoms(data.unitcell)), data.primitive_matrix
    matrix = "auto" if given is None else given
    primitive = ase_atoms(_phonopy(cell, np.eye(3, dtype=int), matrix, symprec_angstrom).primitive)
    return primitive, dict(data.nac_params or {})


def symmetric_born(
    primitive: Atoms, charges: np.ndarray, dielectric: np.ndarray, symprec_angstrom: float
) -> tuple[np.ndarray, np.ndarray]:
    """Charges (n, 3, 3) averaged over the space group, their mean subtracted, and the averaged dielectric tensor."""
    cell = _phonopy_atoms(StructureData.from_atoms(primitive))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Symmetry of Born effective charge")  # our caller looks itself
        found = symmetrize_borns_and_epsilon(charges, dielectric, cell, symprec=symprec_angstrom, lang=LATTICE_BACKEND)
    return np.array(found[0]), np.array(found[1])


def _force_set(data: Any, fc2_matrix: Any, fc3_matrix: Any, fc2: Any, fc3: Any) -> ForceSet:
    cell = StructureData.from_atoms(ase_atoms(data.unitcell))
    matrix = fc3_matrix if fc2_matrix is None else fc2_matrix
    given = "auto" if data.primitive_matrix is None else data.primitive_matrix
    return ForceSet(
        unitcell=cell,
        primitive_matrix=np.array(_phonopy(cell, matrix, given, SYMPREC_ANGSTROM).primitive_matrix),
        fc2_matrix=np.array(matrix),
        fc3_matrix=None if fc3_matrix is None else np.array(fc3_matrix),
        fc2=fc2,
        fc3=fc3,
        nac=None if data.nac_params is None else dict(data.nac_params),
        symprec_angstrom=SYMPREC_ANGSTROM,
    )
