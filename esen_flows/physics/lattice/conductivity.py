"""Lattice thermal conductivity from displaced forces, without another force call."""

import time

import numpy as np

from esen_flows.errors import ImaginaryModesError
from esen_flows.physics.lattice.adapter import PHONO3PY_VERSION
from esen_flows.physics.lattice.anharmonic import Anharmonic
from esen_flows.physics.lattice.datasets import Nac, Transport
from esen_flows.physics.lattice.stability import judge
from esen_flows.schemas.documents import ConductivityOutput, ForcesOutput, StructureData, TransportResult
from esen_flows.schemas.lattice_versions import LATTICE_BACKEND
from esen_flows.schemas.protocols import TransportProtocol

CUMULATIVE_TEMPERATURE_KELVIN = 300.0


def conductivity(forces: ForcesOutput, protocol: TransportProtocol, nac: Nac | None = None) -> ConductivityOutput:
    """Thermal conductivity by phonon-phonon scattering in the relaxation-time approximation, and by Wigner transport.

    "rta": the single-mode relaxation-time solution of the Boltzmann equation. "wigner": populations and coherences
    (Simoncelli, Marzari, Mauri, Nat. Phys. 15, 809 (2019)) with the same linewidths. "lbte": the linearised Boltzmann
    equation solved directly, with the full collision matrix. Linewidths come from the tetrahedron method; isotopes in
    natural abundance and a boundary are added where the protocol asks for them.

    Parameters
    ----------
    forces : third-order displaced forces.
    nac : non-analytical correction of a polar crystal: Born charges and dielectric tensor, as `force_sets` reads them.

    Raises
    ------
    InputError : forces of second order only, or a mesh that breaks the crystal's symmetry.
    ImaginaryModesError : the crystal is dynamically unstable on the mesh.
    """
    start = time.perf_counter()
    lattice = Anharmonic(forces, nac)
    built = time.perf_counter()
    minimum = _refuse_unstable(lattice, protocol)
    temperatures = np.array(protocol.temperatures_kelvin)
    nearest = int(np.argmin(np.abs(temperatures - CUMULATIVE_TEMPERATURE_KELVIN)))
    result = lattice.transport(
        protocol.temperatures_kelvin,
        protocol.methods,
        protocol.isotope_scattering,
        protocol.boundary_mfp_micrometre,
        nearest,
    )
    done = time.perf_counter()
    return ConductivityOutput(
        structure=StructureData.from_atoms(lattice.primitive),
        temperatures_kelvin=temperatures,
        mesh=protocol.mesh,
        methods={method: _by_method(result, method) for method in protocol.methods},
        frequencies_thz=result.frequencies,
        q_points=result.q_points,
        q_weights=result.q_weights,
        linewidths_thz=result.linewidths,
        group_velocities_m_per_s=result.group_velocities,
        cumulative_frequencies_thz=result.cumulative_frequencies,
        cumulative_kappa_w_per_m_k=result.cumulative_kappa,
        cumulative_temperature_kelvin=float(temperatures[nearest]),
        max_frequency_thz=float(result.frequencies.max()),
        min_frequency_thz=minimum,
        fc2_ev_per_angstrom2=lattice.fc2,
        fc3_ev_per_angstrom3=lattice.fc3,
        seconds_force_constants=built - start,
        seconds_transport=done - built,
        phono3py_version=PHONO3PY_VERSION,
        backend=LATTICE_BACKEND,
        mode_kappa_w_per_m_k={method: result.mode_kappa[method] for method in protocol.methods},
        lifetimes_ps=result.lifetimes,
        seconds_forces=forces.seconds,
    )


def _refuse_unstable(lattice: Anharmonic, protocol: TransportProtocol) -> float:
    """Smallest frequency (THz) on the mesh, if the crystal is stable.

    Raises
    ------
    ImaginaryModesError : naming the worst mode.
    """
    q_points, frequencies = lattice.grid_modes(protocol.mesh)
    _, worst = judge(
        frequencies,
        q_points,
        lattice.primitive.cell.array,
        lattice.supercell_vectors,
        protocol.imaginary_tolerance_thz,
        gamma_alone=protocol.imaginary_test == "gamma",
    )
    if worst is not None:
        at = ", ".join(f"{x:.4g}" for x in q_points[worst[0]])
        raise ImaginaryModesError(
            f"{lattice.primitive.get_chemical_formula()} has an imaginary mode of {frequencies[worst]:.3f} THz (band "
            f"{worst[1] + 1}) at q = ({at}) of its primitive cell: it is dynamically unstable here and has no "
            "conductivity. Look at the mode with `phonon`, relax along it (symmetry=free in a supercell), or, for a "
            "small value, check the relaxation and a larger fc2_supercell"
        )
    return float(frequencies.min())


def _by_method(result: Transport, method: str) -> TransportResult:
    kappa = {"rta": result.kappa_rta, "wigner": result.kappa_wigner, "lbte": result.kappa_lbte}[method]
    assert kappa is not None  # asked for by the protocol's methods
    wigner = method == "wigner"
    return TransportResult(
        kappa_w_per_m_k=kappa,
        kappa_particle_w_per_m_k=result.kappa_wigner_intra if wigner else None,
        kappa_coherence_w_per_m_k=result.kappa_wigner_inter if wigner else None,
    )
