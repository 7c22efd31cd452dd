"""Third-order force constants by phono3py, and the heat that its phonons carry; conventions as in `adapter`."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from ase import Atoms
from phono3py.conductivity.factory import conductivity_calculator
from phonopy.phonon.grid import get_ir_grid_points
from phonopy.phonon.spectrum import TetrahedronDOSAccumulator

from esen_flows.errors import InputError
from esen_flows.physics.lattice.adapter import new_phono3py, solver_of, symmetric_mesh
from esen_flows.physics.lattice.datasets import Nac, with_forces
from esen_flows.physics.lattice.masses import ase_atoms, mass_variances
from esen_flows.physics.lattice.native_transport import NativeLinewidths
from esen_flows.physics.lattice.supercell_symmetry import supercell_symmetry
from esen_flows.schemas.lattice_documents import ForcesOutput, TransportResult
from esen_flows.schemas.lattice_versions import LATTICE_BACKEND, TransportBackend
from esen_flows.schemas.protocols import TransportProtocol

CUMULATIVE_POINTS = 201
METRES_PER_SECOND_PER_THZ_ANGSTROM = 100.0
# Linewidths are computed in parts of about this time, after each of which a report is made. Starting a part takes
# hundredths of a second.
PART_SECONDS = 3.0
# Called with the number of q-points that are done, the number of all, and the linewidths (n_temperatures, n_done,
# n_bands) of the former in THz.
OnPoints = Callable[[int, int, np.ndarray], None]


class AnharmonicLattice:
    """Second- and third-order force constants of a crystal.

    Parameters
    ----------
    forces
        Displaced forces of the third order.
    nac
        Non-analytical correction of a polar crystal, or None.

    Attributes
    ----------
    residuals
        Deviations of the force constants from their exact properties before they were imposed; None where forces were
        not averaged.

    Raises
    ------
    InputError
        The forces are of the second order only.
    """

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
        fc3_solver, fc2_solver = solver_of(forces.displacements_fc3), solver_of(forces.displacements_fc2)
        ph3.produce_fc3(fc_calculator=fc3_solver)
        if separate:
            ph3.phonon_dataset = with_forces(forces.displacements_fc2, forces.forces_fc2)
            ph3.produce_fc2(fc_calculator=fc2_solver)
        self.residuals = None if forces.fc_average == "none" else _project(ph3, forces.symprec_angstrom)
        if fc3_solver == "traditional":
            ph3.symmetrize_fc3()
        if fc2_solver == "traditional":
            ph3.symmetrize_fc2()
        if nac is not None:
            ph3.nac_params = nac
        self._ph3, self._unitcell = ph3, forces.unitcell

    @property
    def primitive(self) -> Atoms:
        """The primitive cell."""
        return ase_atoms(self._ph3.primitive, self._unitcell)

    @property
    def supercell_vectors(self) -> np.ndarray:
        """(3, 3) lattice vectors of the second-order supercell in Angstrom, as rows."""
        return np.array(self._ph3.phonon_supercell.cell)

    @property
    def fc2(self) -> np.ndarray:
        """(n_primitive, n_supercell, 3, 3) force constants in eV/Angstrom^2."""
        return np.array(self._ph3.fc2)

    @property
    def fc3(self) -> np.ndarray:
        """(n_primitive, n_supercell, n_supercell, 3, 3, 3) force constants in eV/Angstrom^3."""
        return np.array(self._ph3.fc3)

    def grid_modes(self, mesh: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Set the mesh, and compute the modes at all its q-points, zone boundaries included.

        Parameters
        ----------
        mesh
            Divisions of the reciprocal lattice vectors.

        Returns
        -------
        tuple[np.ndarray, np.ndarray]
            q-points (n, 3) in reduced coordinates of the primitive cell, and frequencies (n, n_bands) in THz.

        Raises
        ------
        InputError
            The mesh breaks the symmetry of the reciprocal lattice.
        """
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
        protocol: TransportProtocol,
        mode_index: int,
        backend: TransportBackend,
        known: np.ndarray | None = None,
        on_points: OnPoints | None = None,
    ) -> dict[str, Any]:
        """Conductivities on the mesh of the last `grid_modes`.

        The relaxation-time approximation is always computed, because its modes are documented.

        Parameters
        ----------
        protocol
            Temperatures, methods and scattering.
        mode_index
            Index of the temperature at which contributions of modes are given.
        backend, known, on_points
            Those of `conductivity`.

        Returns
        -------
        dict[str, Any]
            Fields of ConductivityOutput: the conductivities, and the modes at irreducible q-points.
        """
        ph3, temperatures, boundary = self._ph3, protocol.temperatures_kelvin, protocol.boundary_mfp_micrometre
        scattering: dict[str, Any] = {"is_isotope": protocol.isotope_scattering, "boundary_mfp": boundary}
        if protocol.isotope_scattering:
            scattering["mass_variances"] = mass_variances(self.primitive)
        rta = self._calculator("std-rta", temperatures, **scattering)
        self._set_linewidths(rta, protocol, backend, known, on_points)
        rta.run()
        methods = {"rta": _result(rta.kappa[0])}
        mode_kappa = {"rta": _mean_of_modes(rta.mode_kappa[0, mode_index], ph3.mesh_numbers)}
        # Simoncelli, Marzari, Mauri, Nat. Phys. 15, 809 (2019): "SMM19" in phono3py.
        if "wigner" in protocol.methods:
            wigner = self._calculator("SMM19-rta", temperatures, **scattering)
            # The linewidths are the same, and nearly all of the work.
            wigner.gamma, wigner.gamma_isotope = rta.gamma, rta.gamma_isotope
            wigner.run()
            methods["wigner"] = _result(wigner.kappa[0], wigner.kappa_intra[0], wigner.kappa_inter[0])
            shared = _shared_by_pairs(wigner.mode_kappa_matrix[0, mode_index], rta.mode_heat_capacities[mode_index])
            mode_kappa["wigner"] = _mean_of_modes(shared, ph3.mesh_numbers)
        # The linearised Boltzmann equation solved directly: Chaput, Phys. Rev. Lett. 110, 265506 (2013).
        if "lbte" in protocol.methods:
            ph3.run_thermal_conductivity(is_LBTE=True, temperatures=list(temperatures), **scattering)
            lbte = ph3.thermal_conductivity
            methods["lbte"] = _result(lbte.kappa[0])
            mode_kappa["lbte"] = _mean_of_modes(lbte.mode_kappa[0, mode_index], ph3.mesh_numbers)
        return {
            "methods": {method: methods[method] for method in protocol.methods},
            "q_points": np.array(rta.qpoints),
            "q_weights": np.array(rta.grid_weights),
            "frequencies_thz": np.array(rta.frequencies),
            "linewidths_thz": np.array(rta.gamma[0]),
            "group_velocities_m_per_s": np.array(rta.group_velocities) * METRES_PER_SECOND_PER_THZ_ANGSTROM,
            **self._cumulative(rta, mode_index),
            "mode_kappa_w_per_m_k": mode_kappa,
            "lifetimes_ps": _lifetimes(rta, mode_index, boundary),
        }

    def _calculator(self, method: str, temperatures: Sequence[float], **options: Any) -> Any:
        kelvin = np.array(temperatures, dtype="double")
        interaction = self._ph3.phph_interaction
        return conductivity_calculator(interaction, kelvin, [None], method=method, lang=LATTICE_BACKEND, **options)

    def _set_linewidths(
        self,
        rta: Any,
        protocol: TransportProtocol,
        backend: TransportBackend,
        known: np.ndarray | None,
        on_points: OnPoints | None,
    ) -> None:
        """Give linewidths to a calculator of phono3py, which then does not compute its own."""
        native = NativeLinewidths(self._ph3, protocol.temperatures_kelvin) if backend == "native" else None
        compute = native.by_phonons if native else partial(self._gamma, protocol.temperatures_kelvin)
        rta.gamma = _in_parts(compute, rta.grid_points, known, on_points)[None]
        if native and protocol.isotope_scattering:
            rta.gamma_isotope = native.by_isotopes(rta.grid_points, mass_variances(self.primitive))[None]

    def _gamma(self, temperatures: Sequence[float], points: np.ndarray) -> np.ndarray:
        """(n_temperatures, n_points, n_bands) linewidths in THz by phonon-phonon scattering, from phono3py."""
        part = self._calculator("std-rta", temperatures, grid_points=points)
        part.run()
        return np.array(part.gamma[0])

    def _cumulative(self, rta: Any, temperature_index: int) -> dict[str, np.ndarray]:
        """Frequencies, and the mean diagonal RTA conductivity carried below each, by the tetrahedron method."""
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
        return {
            "cumulative_frequencies_thz": np.array(result.sampling_points),
            "cumulative_kappa_w_per_m_k": np.array(result.cumulative[0, :, 0]),
        }


def _project(ph3: Any, symprec_angstrom: float) -> dict[str, float]:
    """Project force constants of both orders on the space group; their deviations before that, by order and kind."""
    found: dict[str, float] = {}
    for name, supercell, primitive in (
        ("fc2", ph3.phonon_supercell, ph3.phonon_primitive),
        ("fc3", ph3.supercell, ph3.primitive),
    ):
        constants, first = np.array(getattr(ph3, name)), np.array(primitive.p2s_map)
        symmetry = supercell_symmetry(ase_atoms(supercell), symprec_angstrom)
        found |= {f"{name}_{kind}": value for kind, value in symmetry.residuals(constants, first).items()}
        setattr(ph3, name, symmetry.projected(constants, first))
    return found


def _in_parts(
    compute: Callable[[np.ndarray], np.ndarray],
    points: np.ndarray,
    known: np.ndarray | None,
    on_points: OnPoints | None,
) -> np.ndarray:
    """(n_temperatures, n_points, n_bands) linewidths of the irreducible grid points, computed in parts.

    The linewidths are nearly all of the work of a conductivity.
    """
    parts = [] if known is None else [known]
    done, size = sum(part.shape[1] for part in parts), 1
    while done < len(points):
        start = time.perf_counter()
        parts = [np.concatenate([*parts, compute(points[done : done + size])], axis=1)]
        done = parts[0].shape[1]
        if on_points is not None:
            on_points(done, len(points), parts[0])
        if time.perf_counter() - start < PART_SECONDS / 2:
            size *= 2
    return parts[0]


def _result(
    kappa: np.ndarray, particle: np.ndarray | None = None, coherence: np.ndarray | None = None
) -> TransportResult:
    return TransportResult(
        kappa_w_per_m_k=kappa, kappa_particle_w_per_m_k=particle, kappa_coherence_w_per_m_k=coherence
    )


def _mean_of_modes(tensors: np.ndarray, mesh: Sequence[int]) -> np.ndarray:
    """(n_q, n_bands) contributions to the mean of xx, yy and zz of (n_q, n_bands, 6), which hold the weights of q."""
    return np.asarray(tensors[..., :3].mean(axis=-1) / np.prod(mesh))


def _shared_by_pairs(matrix: np.ndarray, heat_capacities: np.ndarray) -> np.ndarray:
    """Wigner conductivity of pairs of bands (n_q, n_bands, n_bands, 6), divided between them by their heat capacities.

    Bands with equal heat capacities get equal parts; the pair of a mode with itself is all its own (Simoncelli et al.,
    Phys. Rev. X 12, 041011 (2022)).
    """
    first, second = heat_capacities[:, :, None], heat_capacities[:, None, :]
    total = first + second
    share = np.divide(2 * first, total, out=np.zeros_like(total), where=total > 0)
    return np.asarray((matrix * share[..., None]).sum(axis=2))


def _lifetimes(rta: Any, index: int, boundary_mfp_micrometre: float | None) -> np.ndarray:
    """(n_q, n_bands) lifetimes 1 / (4 pi linewidth) in ps by all scattering; NaN where nothing scatters."""
    linewidths = np.array(rta.gamma[0, index])
    if rta.gamma_isotope is not None:
        linewidths = linewidths + rta.gamma_isotope[0]
    if boundary_mfp_micrometre is not None:
        speed = np.linalg.norm(rta.group_velocities, axis=2) * METRES_PER_SECOND_PER_THZ_ANGSTROM
        # A boundary scatters at the rate speed / mean free path, which is 4 pi times the linewidth.
        linewidths = linewidths + speed / (4 * np.pi * boundary_mfp_micrometre * 1e-6) * 1e-12
    return np.divide(1.0, 4 * np.pi * linewidths, out=np.full_like(linewidths, np.nan), where=linewidths > 0)
