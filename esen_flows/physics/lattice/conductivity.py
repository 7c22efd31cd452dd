"""Lattice thermal conductivity from displaced forces, without another force call.

There are three methods. "rta" is the single-mode relaxation-time solution of the Boltzmann equation. "wigner" adds the
transport by coherences to that by populations (Simoncelli, Marzari, Mauri, Nat. Phys. 15, 809 (2019)), with the same
linewidths. "lbte" is the direct solution of the linearised Boltzmann equation, with the full collision matrix.
Linewidths come from the tetrahedron method. Scattering by isotopes in natural abundance (none at an atom with a mass of
its own) and by a boundary is added where the protocol asks for it.
"""

import time

import numpy as np

from esen_flows.errors import ImaginaryModesError, InputError
from esen_flows.physics.lattice.adapter import PHONO3PY_VERSION
from esen_flows.physics.lattice.anharmonic import AnharmonicLattice, OnPoints
from esen_flows.physics.lattice.born import born_parameters
from esen_flows.physics.lattice.datasets import Nac
from esen_flows.physics.lattice.force_averages import jackknife_error, without_frame
from esen_flows.physics.lattice.masses import without_abundances
from esen_flows.physics.lattice.stability import stability_verdict
from esen_flows.schemas.documents import StructureData
from esen_flows.schemas.lattice_documents import ConductivityOutput, ForcesOutput, TransportResult
from esen_flows.schemas.lattice_versions import TRANSPORT_BACKEND, TransportBackend
from esen_flows.schemas.protocols import TransportProtocol

# Contributions of modes and the cumulative conductivity are at the temperature that is nearest to this one.
MODE_TEMPERATURE_KELVIN = 300.0
# The largest third-order force constant of a solid is above 0.1; those that symmetry forbids are below 1e-15.
LEAST_FC3_EV_PER_ANGSTROM3 = 1e-6


def conductivity(
    forces: ForcesOutput,
    protocol: TransportProtocol,
    nac: Nac | None = None,
    *,
    backend: TransportBackend = TRANSPORT_BACKEND,
    known: np.ndarray | None = None,
    on_points: OnPoints | None = None,
) -> ConductivityOutput:
    """Thermal conductivity by phonon-phonon scattering, by the methods of the protocol (see the module).

    Parameters
    ----------
    forces
        Displaced forces of the third order.
    protocol
        Mesh, temperatures, methods and scattering.
    nac
        Non-analytical correction of a polar crystal: Born charges and dielectric tensor, as `force_sets` reads them.
        None: those of the protocol's `born`, if any.
    backend
        Implementation of the linewidths: "native", this package's own (`transport`), or "Rust", phono3py's. They agree
        to 1e-12, or to 2e-7 with a non-analytical correction. Isotope scattering differs where phono3py's depends on
        rounding (`transport.isotopes`). "lbte" is always computed by phono3py.
    known
        Linewidths that an earlier call with equal arguments gave to its `on_points`; the work continues after them.
    on_points
        Called every few seconds with the number of irreducible q-points whose linewidths are known, the number of all,
        and these linewidths (n_temperatures, n_known, n_bands) in THz. An exception that it raises ends the work.

    Returns
    -------
    ConductivityOutput
        Conductivities (n_temperatures, 6) in W/m/K by method, and the modes that carry them.

    Raises
    ------
    InputError
        The forces are of the second order only, the supercell has no third order, the mesh breaks the symmetry of the
        crystal, an element has no natural isotopes that scatter, or the Born charges belong to another crystal.
    ImaginaryModesError
        The crystal is dynamically unstable on the mesh.
    """
    start = time.perf_counter()
    if nac is None and protocol.born is not None:
        nac = born_parameters(protocol.born, forces)
    unknown = without_abundances(forces.unitcell) if protocol.isotope_scattering else []
    if unknown:
        raise InputError(
            f"{', '.join(unknown)} has no natural abundances of isotopes that scatter; set isotope_scattering=false"
        )
    lattice = AnharmonicLattice(forces, nac)
    _refuse_harmonic(lattice, forces)
    built = time.perf_counter()
    minimum = _refuse_unstable(lattice, protocol)
    temperatures = np.array(protocol.temperatures_kelvin)
    nearest = int(np.argmin(np.abs(temperatures - MODE_TEMPERATURE_KELVIN)))
    transport = lattice.transport(protocol, nearest, backend, known, on_points)
    if forces.frame_forces_fc3 is not None:
        _add_errors(transport["methods"], forces, protocol, nac, backend)
    done = time.perf_counter()
    return ConductivityOutput(
        structure=StructureData.from_atoms(lattice.primitive),
        temperatures_kelvin=temperatures,
        mesh=protocol.mesh,
        cumulative_temperature_kelvin=float(temperatures[nearest]),
        max_frequency_thz=float(transport["frequencies_thz"].max()),
        min_frequency_thz=minimum,
        fc2_ev_per_angstrom2=lattice.fc2,
        fc3_ev_per_angstrom3=lattice.fc3,
        seconds_force_constants=built - start,
        seconds_transport=done - built,
        seconds_forces=forces.seconds,
        given_to_primitive=forces.given_to_primitive,
        phono3py_version=PHONO3PY_VERSION,
        backend=backend,
        fc_average=forces.fc_average,
        fc_residuals=lattice.residuals,
        force_spread_ev_per_angstrom=forces.force_spread_fc3_ev_per_angstrom,
        **transport,
    )


def _add_errors(
    methods: dict[str, TransportResult],
    forces: ForcesOutput,
    protocol: TransportProtocol,
    nac: Nac | None,
    backend: TransportBackend,
) -> None:
    """Give conductivities their standard errors from random orientations: transport is solved once for each."""
    assert forces.frame_forces_fc3 is not None
    left_out: dict[str, list[np.ndarray]] = {method: [] for method in methods}
    for number in range(len(forces.frame_forces_fc3)):
        lattice = AnharmonicLattice(without_frame(forces, number), nac)
        lattice.grid_modes(protocol.mesh)
        for method, result in lattice.transport(protocol, 0, backend)["methods"].items():
            left_out[method].append(result.kappa_w_per_m_k)
    for method, values in left_out.items():
        tensors = np.array(values)
        methods[method].kappa_error_w_per_m_k = jackknife_error(tensors)
        methods[method].mean_kappa_error_w_per_m_k = jackknife_error(tensors[..., :3].mean(axis=-1))


def _refuse_harmonic(lattice: AnharmonicLattice, forces: ForcesOutput) -> None:
    """Refuse vanishing third-order force constants: rounding alone would limit the conductivity, to 1e38 W/m/K.

    They vanish for example in the conventional cell of an fcc metal, in which inversion at an atom leaves every other
    atom in its place.
    """
    if np.abs(lattice.fc3).max() < LEAST_FC3_EV_PER_ANGSTROM3:
        matrix = np.asarray(forces.supercell_matrix_fc3).tolist()
        raise InputError(
            f"the third-order force constants of {lattice.primitive.get_chemical_formula()} vanish in a supercell of "
            f"{lattice.fc3.shape[1]} atoms (fc3_supercell={matrix}), so that no "
            "phonon scatters: its symmetry forbids them, or all pairs are beyond the cutoff; take a larger "
            "fc3_supercell"
        )


def _refuse_unstable(lattice: AnharmonicLattice, protocol: TransportProtocol) -> float:
    """The smallest frequency on the mesh in THz; an unstable crystal is refused with its worst mode."""
    q_points, frequencies = lattice.grid_modes(protocol.mesh)
    _, worst = stability_verdict(
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
            "conductivity. Look at the mode with `phonon`, follow it to a stable structure (relax with "
            "symmetry=explore), or, for a small value, check the relaxation and a larger fc2_supercell"
        )
    return float(frequencies.min())
