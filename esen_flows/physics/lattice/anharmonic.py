"""Third-order force constants by phono3py, and the heat that its phonons carry; conventions are those of `adapter`."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from phono3py.conductivity.factory import conductivity_calculator
from phonopy.phonon.grid import get_ir_grid_points
from phonopy.phonon.spectrum import TetrahedronDOSAccumulator

from esen_flows.errors import InputError
from esen_flows.physics.lattice.adapter import ase_atoms, new_phono3py, solver_of, symmetric_mesh
from esen_flows.physics.lattice.datasets import Nac, Transport, with_forces
from esen_flows.schemas.lattice_documents import ForcesOutput
from esen_flows.schemas.lattice_versions import LATTICE_BACKEND

CUMULATIVE_POINTS = 201
METRES_PER_SECOND_PER_THZ_ANGSTROM = 100.0
PART_SECONDS = 3.0  # of linewidths, between two reports; beginning a part takes hundredths
# q-points that are done, q-points in all, and the linewidths (n_temperatures, n_done, n_bands) of the former in THz.
OnPoints = Callable[[int, int, np.ndarray], None]


class Anharmonic:
    """Second- and third-order force constants and what follows from them."""

    def __init__(self, forces: ForcesOutput, nac: Nac | None = None) -> None:
        if forces.supercell_matrix_fc3 is None or forces.displacements_fc3 is None or forces.forces_fc3 is None:
            raise InputError("conductivity needs third-order forces, got second order; displace with order=3")
        separate = not np.array_equal(forces.supercell_matrix_fc2, forces.supercell_matrix_fc3)
        ph3 = new_phono3py(
            forces.unitcell,
            forces.supercell_matrix_fc3,
            forces.supercell_matrix_fc2 if separate else None,
            forces.primitive_matrix,
            forces.symprec_angstrom,
        )
        ph3.dataset = with_forces(forces.displacements_fc3, forces.forces_fc3)
        solver = solver_of(forces.displacements_fc3)
        ph3.produce_fc3(fc_calculator=solver)
        if separate:
            ph3.phonon_dataset = with_forces(forces.displacements_fc2, forces.forces_fc2)
            ph3.produce_fc2(fc_calculator=solver_of(forces.displacements_fc2))
        if solver == "traditional":
            ph3.symmetrize_fc3()
        if solver_of(forces.displacements_fc2) == "traditional":
            ph3.symmetrize_fc2()
        if nac is not None:
            ph3.nac_params = nac
        self._ph3 = ph3

    @property
    def primitive(self) -> Atoms:
        """The primitive cell."""
        return ase_atoms(self._ph3.primitive)

    @property
    def supercell_vectors(self) -> np.ndarray:
        """(3, 3) lattice vectors of the second-order supercell in Angstrom."""
        return np.array(self._ph3.phonon_supercell.cell)

    @property
    def fc2(self) -> np.ndarray:
        """(n_primitive, n_supercell, 3, 3) in eV/Angstrom^2."""
        return np.array(self._ph3.fc2)

    @property
    def fc3(self) -> np.ndarray:
        """(n_primitive, n_supercell, n_supercell, 3, 3, 3) in eV/Angstrom^3."""
        return np.array(self._ph3.fc3)

    def grid_modes(self, mesh: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Set the mesh; all its q-points (n, 3), zone boundaries included, and frequencies (n, n_bands) in THz."""
        with symmetric_mesh(mesh):
            self._ph3.mesh_numbers = list(mesh)
        self._ph3.init_phph_interaction(
            average_degenerate_weights=True, symmetrize_tetrahedra=True, exclude_gamma_acoustic=True
        )
        self._ph3.run_phonon_solver()
        grid = self._ph3.grid
        return np.array(grid.addresses @ grid.QDinv.T), np.array(self._ph3.get_phonon_data()[0])

    def transport(
        self,
        temperatures: Sequence[float],
        methods: Sequence[str],
        isotope: bool,
        boundary_mfp_micrometre: float | None,
        mode_index: int,
        known: np.ndarray | None = None,
        on_points: OnPoints | None = None,
    ) -> Transport:
        """Conductivity on the mesh of the last `grid_modes`.

        Always in the relaxation-time approximation. "wigner": Simoncelli, Marzari, Mauri, Nat. Phys. 15, 809 (2019),
        "SMM19" in phono3py, from the same linewidths. "lbte": the linearised Boltzmann equation solved directly
        (Chaput, Phys. Rev. Lett. 110, 265506 (2013)). What is resolved by modes is at the temperature `mode_index`.
        `known` and `on_points` are those of `conductivity`.
        """
        ph3 = self._ph3
        scattering = {"is_isotope": isotope, "boundary_mfp": boundary_mfp_micrometre}
        rta = self._calculator("std-rta", temperatures, **scattering)
        rta.gamma = self._linewidths(temperatures, rta.grid_points, known, on_points)
        rta.run()
        mode_kappa = {"rta": _of_modes(rta.mode_kappa[0, mode_index], ph3.mesh_numbers)}
        wigner: Any = None
        if "wigner" in methods:
            wigner = self._calculator("SMM19-rta", temperatures, **scattering)
            # The linewidths are nearly all of the work, and the same.
            wigner.gamma, wigner.gamma_isotope = rta.gamma, rta.gamma_isotope
            wigner.run()
            shared = _shared_by_pairs(wigner.mode_kappa_matrix[0, mode_index], rta.mode_heat_capacities[mode_index])
            mode_kappa["wigner"] = _of_modes(shared, ph3.mesh_numbers)
        lbte: Any = None
        if "lbte" in methods:
            ph3.run_thermal_conductivity(is_LBTE=True, temperatures=list(temperatures), **scattering)
            lbte = ph3.thermal_conductivity
            mode_kappa["lbte"] = _of_modes(lbte.mode_kappa[0, mode_index], ph3.mesh_numbers)
        points, cumulative = self._cumulative(rta, mode_index)
        return Transport(
            kappa_rta=rta.kappa[0],
            kappa_wigner=wigner.kappa[0] if wigner else None,
            kappa_wigner_intra=wigner.kappa_intra[0] if wigner else None,
            kappa_wigner_inter=wigner.kappa_inter[0] if wigner else None,
            kappa_lbte=lbte.kappa[0] if lbte else None,
            q_points=np.array(rta.qpoints),
            q_weights=np.array(rta.grid_weights),
            frequencies=np.array(rta.frequencies),
            linewidths=np.array(rta.gamma[0]),
            group_velocities=np.array(rta.group_velocities) * METRES_PER_SECOND_PER_THZ_ANGSTROM,
            cumulative_frequencies=points,
            cumulative_kappa=cumulative,
            mode_kappa=mode_kappa,
            lifetimes=_lifetimes(rta, mode_index, boundary_mfp_micrometre),
        )

    def _calculator(self, method: str, temperatures: Sequence[float], **options: Any) -> Any:
        kelvin = np.array(temperatures, dtype="double")
        interaction = self._ph3.phph_interaction
        return conductivity_calculator(interaction, kelvin, [None], method=method, lang=LATTICE_BACKEND, **options)

    def _linewidths(
        self, temperatures: Sequence[float], points: np.ndarray, known: np.ndarray | None, on_points: OnPoints | None
    ) -> np.ndarray:
        """(1, n_temperatures, n_q, n_bands) in THz by phonon-phonon scattering at irreducible grid points, in parts.

        Nearly all of the work of a conductivity.
        """
        parts = [] if known is None else [known]
        done, size = sum(part.shape[1] for part in parts), 1
        while done < len(points):
            start = time.perf_counter()
            part = self._calculator("std-rta", temperatures, grid_points=points[done : done + size])
            part.run()
            parts = [np.concatenate([*parts, part.gamma[0]], axis=1)]
            done = parts[0].shape[1]
            if on_points is not None:
                on_points(done, len(points), parts[0])
            if time.perf_counter() - start < PART_SECONDS / 2:
                size *= 2
        return parts[0][None]

    def _cumulative(self, rta: Any, temperature_index: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean diagonal RTA conductivity carried below each frequency, by the tetrahedron method."""
        ir_grid_points, _, ir_grid_map = get_ir_grid_points(self._ph3.grid)
        mode_kappa = rta.mode_kappa[0, temperature_index, :, :, :3].mean(axis=-1)  # holds the weights already
        result = TetrahedronDOSAccumulator(
            np.maximum(rta.frequencies, 0.0),
            self._ph3.grid,
            mode_property=mode_kappa[None, :, :, None],
            ir_grid_points=ir_grid_points,
            ir_grid_map=ir_grid_map,
            num_sampling_points=CUMULATIVE_POINTS,
            symmetrize_tetrahedra=True,
            lang=LATTICE_BACKEND,
        ).result
        return np.array(result.sampling_points), np.array(result.cumulative[0, :, 0])


def _of_modes(tensors: np.ndarray, mesh: Sequence[int]) -> np.ndarray:
    """(n_q, n_bands) parts of the mean of xx, yy and zz, weights of the q-points included, of (n_q, n_bands, 6)."""
    return np.asarray(tensors[..., :3].mean(axis=-1) / np.prod(mesh))


def _shared_by_pairs(matrix: np.ndarray, heat_capacities: np.ndarray) -> np.ndarray:
    """Wigner's conductivity of pairs of bands (n_q, n_bands, n_bands, 6) shared among them by their heat capacities.

    Equal ones share equally; a mode with itself keeps all (Simoncelli et al., Phys. Rev. X 12, 041011 (2022)).
    """
    first, second = heat_capacities[:, :, None], heat_capacities[:, None, :]
    total = first + second
    share = np.divide(2 * first, total, out=np.zeros_like(total), where=total > 0)
    return np.asarray((matrix * share[..., None]).sum(axis=2))


def _lifetimes(rta: Any, index: int, boundary_mfp_micrometre: float | None) -> np.ndarray:
    """(n_q, n_bands) in ps by all that scatters; NaN where nothing does."""
    linewidths = np.array(rta.gamma[0, index])
    if rta.gamma_isotope is not None:
        linewidths = linewidths + rta.gamma_isotope[0]
    if boundary_mfp_micrometre is not None:
        speed = np.linalg.norm(rta.group_velocities, axis=2) * METRES_PER_SECOND_PER_THZ_ANGSTROM
        linewidths = linewidths + speed / (4 * np.pi * boundary_mfp_micrometre * 1e-6) * 1e-12
    return np.divide(1.0, 4 * np.pi * linewidths, out=np.full_like(linewidths, np.nan), where=linewidths > 0)
