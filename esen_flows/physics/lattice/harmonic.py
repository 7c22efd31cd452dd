"""Second-order force constants by phonopy, and the phonons that follow from them; conventions as in `adapter`."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from phonopy.harmonic.dynmat_to_fc import get_commensurate_points
from phonopy.harmonic.force_constants import compact_fc_to_full_fc
from phonopy.phonon.grid import BZGrid, get_ir_grid_points, length2mesh
from phonopy.phonon.spectrum import TetrahedronDOSAccumulator

from esen_flows.physics.lattice.adapter import (
    new_phonopy,
    solver_of,
    symmetric_mesh,
    without_known_warnings,
)
from esen_flows.physics.lattice.datasets import DensitiesOfStates, Nac, ThermalProperties, with_forces
from esen_flows.physics.lattice.masses import ase_atoms
from esen_flows.physics.lattice.modes import atom_shares
from esen_flows.physics.lattice.supercell_symmetry import supercell_symmetry
from esen_flows.schemas.lattice_documents import ForcesOutput
from esen_flows.schemas.lattice_versions import LATTICE_BACKEND

DOS_POINTS = 401
Q_POINTS_PER_CHUNK = 128  # bounds the memory of the eigenvectors of large cells


class HarmonicLattice:
    """Second-order force constants of a crystal.

    Parameters
    ----------
    forces
        Displaced forces; of the third order only the second-order part is used.
    nac
        Non-analytical correction of a polar crystal, or None.
    remove_drift
        Whether the mean force of each supercell is taken from its forces.
    symmetrize
        Whether translation and permutation symmetry are imposed on the force constants.

    Attributes
    ----------
    residuals
        Deviations of the force constants from their exact properties before they were imposed; None where forces were
        not averaged.
    """

    def __init__(
        self, forces: ForcesOutput, nac: Nac | None = None, *, remove_drift: bool = False, symmetrize: bool = True
    ) -> None:
        phonon = new_phonopy(
            forces.unitcell, forces.supercell_matrix_fc2, forces.primitive_matrix, forces.symprec_angstrom
        )
        if nac is not None:
            phonon.nac_params = nac
        self._phonon, self._unitcell, self._dataset = phonon, forces.unitcell, forces.displacements_fc2
        self._remove_drift, self._symmetrize = remove_drift, symmetrize
        # Force constants from averaged forces are projected on the space group.
        self._symmetry = None
        if forces.fc_average != "none":
            self._symmetry = supercell_symmetry(self.supercell, forces.symprec_angstrom)
        self.residuals: dict[str, float] | None = None
        self.use(forces.forces_fc2)

    def use(self, forces: np.ndarray) -> None:
        """Make force constants from other forces of the same displacements.

        Parameters
        ----------
        forces
            (n, n_atoms, 3) in eV/Angstrom.
        """
        phonon, solver = self._phonon, solver_of(self._dataset)
        drift = forces.mean(axis=1, keepdims=True) if self._remove_drift else 0.0
        phonon.dataset = with_forces(self._dataset, forces - drift)
        phonon.produce_force_constants(calculate_full_force_constants=False, fc_calculator=solver, show_drift=False)
        if self._symmetry is not None:
            constants, first = np.array(phonon.force_constants), np.array(phonon.primitive.p2s_map)
            self.residuals = self._symmetry.residuals(constants, first)
            phonon.force_constants = self._symmetry.projected(constants, first)
        if solver == "traditional" and self._symmetrize:
            phonon.symmetrize_force_constants(level=3, show_drift=False)  # level 3 is phono3py's default

    @property
    def primitive(self) -> Atoms:
        """The primitive cell."""
        return ase_atoms(self._phonon.primitive, self._unitcell)

    @property
    def supercell_vectors(self) -> np.ndarray:
        """(3, 3) lattice vectors of the supercell in Angstrom, as rows."""
        return np.array(self._phonon.supercell.cell)

    @property
    def force_constants(self) -> np.ndarray:
        """(n_primitive, n_supercell, 3, 3) force constants in eV/Angstrom^2."""
        return np.array(self._phonon.force_constants)

    @property
    def supercell(self) -> Atoms:
        """The supercell without displacements."""
        return ase_atoms(self._phonon.supercell, self._unitcell)

    @property
    def supercell_masses(self) -> np.ndarray:
        """(n_supercell,) masses in u."""
        return np.array(self._phonon.supercell.masses)

    @property
    def supercell_to_primitive(self) -> np.ndarray:
        """(n_supercell,) atom of the primitive cell of which each atom of the supercell is a translation."""
        primitive = self._phonon.primitive
        return np.array([primitive.p2p_map[atom] for atom in primitive.s2p_map])

    @property
    def thz_factor(self) -> float:
        """Frequency in THz of a mode whose eigenvalue is 1 eV/Angstrom^2/u."""
        return float(self._phonon.unit_conversion_factor)

    def supercell_cells(self) -> np.ndarray:
        """Lattice vectors from atoms of the primitive cell to those of the supercell.

        Returns
        -------
        np.ndarray
            (n_supercell, 3) integers, in units of the primitive cell.
        """
        primitive, supercell = self._phonon.primitive, self._phonon.supercell
        apart = supercell.positions - primitive.positions[self.supercell_to_primitive]
        return np.rint(apart @ np.linalg.inv(primitive.cell)).astype(int)

    def full_force_constants(self) -> np.ndarray:
        """Force constants between all atoms of the supercell.

        Returns
        -------
        np.ndarray
            (n_supercell, n_supercell, 3, 3) in eV/Angstrom^2.
        """
        return np.array(compact_fc_to_full_fc(self._phonon.primitive, self._phonon.force_constants))

    def commensurate_points(self) -> np.ndarray:
        """The q-points that are commensurate with the supercell, where no frequency is interpolated.

        Returns
        -------
        np.ndarray
            (n, 3) in reduced coordinates of the primitive cell.
        """
        matrix = np.linalg.inv(self._phonon.primitive.primitive_matrix)  # the supercell in units of the primitive cell
        return np.array(get_commensurate_points(np.rint(matrix).astype(int)))

    def highest_commensurate_thz(self) -> float:
        """Highest frequency at the q-points of the MDR benchmark.

        These are phonopy's commensurate points of the supercell matrix, taken in the basis of the primitive cell: 8 for
        a doubled conventional cell, where `commensurate_points` gives 32.

        Returns
        -------
        float
            Frequency in THz.
        """
        return float(self.modes(get_commensurate_points(np.array(self._phonon.supercell_matrix)))[0].max())

    def divisions(self, length_angstrom: float) -> tuple[int, int, int]:
        """The mesh that phonopy takes for a length.

        Parameters
        ----------
        length_angstrom
            The length in Angstrom.

        Returns
        -------
        tuple[int, int, int]
            Divisions of the reciprocal lattice vectors.
        """
        primitive, symmetry = self._phonon.primitive, self._phonon.primitive_symmetry
        rotations = symmetry.pointgroup_operations
        first, second, third = length2mesh(length_angstrom, primitive.cell, rotations=rotations).tolist()
        return first, second, third

    def modes(self, q_points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Frequencies and eigenvectors.

        Parameters
        ----------
        q_points
            (n_q, 3) in reduced coordinates of the primitive cell.

        Returns
        -------
        tuple[np.ndarray, np.ndarray]
            Frequencies (n_q, n_bands) in THz, negative for imaginary ones, and eigenvectors (n_q, 3 n_atoms, n_bands).
        """
        result = self._phonon.run_qpoints(q_points, with_eigenvectors=True)
        return np.array(result.frequencies), np.array(result.eigenvectors)

    def bands(self, segments: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Frequencies along a path.

        Parameters
        ----------
        segments
            q-points (n, 3) of each segment, in reduced coordinates of the primitive cell.

        Returns
        -------
        tuple[list[np.ndarray], list[np.ndarray]]
            For each segment, distances (n,) along the path in 1/Angstrom and frequencies (n, n_bands) in THz.
        """
        result = self._phonon.run_band_structure(list(segments))
        return [np.array(d) for d in result.distances], [np.array(f) for f in result.frequencies]

    def thermal_properties(self, mesh: Sequence[int], temperatures: Sequence[float]) -> ThermalProperties:
        """Thermal properties on phonopy's own mesh, which is shifted off Gamma where a division is even.

        The published MDR phonon data were sampled on such meshes; centred on Gamma, their 300 K entropy of BaTe moves
        by 0.015 %.

        Parameters
        ----------
        mesh
            Divisions of the reciprocal lattice vectors.
        temperatures
            Temperatures in K.

        Returns
        -------
        ThermalProperties
            The properties at each temperature.
        """
        with without_known_warnings():
            sampled = self._phonon.run_mesh(list(mesh))
        found = self._phonon.run_thermal_properties(temperatures=list(temperatures), exclude_gamma_acoustic=True)
        return ThermalProperties(
            q_points=np.array(sampled.qpoints),
            frequencies=np.array(sampled.frequencies),
            free_energy=np.array(found.free_energy),
            entropy=np.array(found.entropy),
            heat_capacity=np.array(found.heat_capacity),
        )

    def densities_of_states(self, mesh: Sequence[int]) -> DensitiesOfStates:
        """Total and atom-projected densities of states on a Gamma-centred mesh, by the tetrahedron method.

        Only irreducible q-points are visited. Phonopy's own projection visits all q-points, with the same result.

        Parameters
        ----------
        mesh
            Divisions of the reciprocal lattice vectors.

        Returns
        -------
        DensitiesOfStates
            The densities.

        Raises
        ------
        InputError
            The mesh breaks the symmetry of the reciprocal lattice.
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
        for first in range(0, len(q_points), Q_POINTS_PER_CHUNK):
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
        return DensitiesOfStates(q_points, sampled, np.array(result.sampling_points), projected.sum(axis=0), projected)
