"""Documents of displaced supercells, phonons and thermal conductivities, with units in the names of their fields."""

from typing import Any, Literal

from esen_flows.schemas.declarations import Parity
from esen_flows.schemas.documents import Array, Document, StructureData
from esen_flows.schemas.protocol_types import ForceConstantAverage


class ForcesOutput(Document):
    """Forces of displaced supercells, with all that force constants need: no structure is ever evaluated again.

    For order 2 the fields of the third order are None. With force constants by autodiff, the forces are what the
    displacements add to first order in the last one, by exact Hessians: -H u, and for a pair -H u - H(u) w.

    Attributes
    ----------
    unitcell
        Relaxed cell to which the supercell matrices refer.
    supercell_matrix_fc3
        (3, 3) integers, rows as in phonopy: supercell of the third order.
    supercell_matrix_fc2
        (3, 3) integers: supercell of the harmonic force constants.
    primitive_matrix
        (3, 3) primitive cell in units of the conventional one, as in phonopy.
    displacement_angstrom
        Length of the displacements in Angstrom.
    force_constants
        Whether forces are those of finite displacements or products of exact Hessians.
    symprec_angstrom
        Tolerance of the symmetry search in Angstrom.
    parity
        Parity of the protocol.
    parity_averaged
        Whether the force field needed the average over inversion, and got it.
    displacements_fc3
        Displacement dataset of phono3py without forces.
    forces_fc3
        (n_displacements, n_atoms, 3) forces in eV/Angstrom.
    displacements_fc2
        Displacement dataset of phonopy without forces.
    forces_fc2
        (n_displacements, n_atoms, 3) forces in eV/Angstrom.
    n_evaluations
        Number of structures that the process evaluated that finished; those of an interrupted one are not counted.
    seconds
        Wall time of the same process.
    given_to_primitive
        (n_given,) index in the primitive cell of each atom of the relaxed structure, in the order in which it was
        given; None in documents of earlier versions and of published force sets.
    orientation_spread
        (3,) for results that are means over rotations: root mean square over supercells, rotations and components of
        the deviations of the energy per atom (eV), the forces (eV/Angstrom) and the stress (eV/Angstrom^3); None where
        nothing was averaged over rotations. An interrupted process has no part in it.
    fc_average
        Over what forces were averaged.
    force_spread_fc2_ev_per_angstrom, force_spread_fc3_ev_per_angstrom
        Root mean square deviation of force components from their mean, over equivalent supercells or orientations.
    frame_forces_fc2, frame_forces_fc3
        (k, n_displacements, n_atoms, 3) forces in eV/Angstrom in each of k random orientations, turned back.
    """

    unitcell: StructureData
    supercell_matrix_fc3: Array | None
    supercell_matrix_fc2: Array
    primitive_matrix: Array
    displacement_angstrom: float
    force_constants: Literal["finite_displacement", "autodiff"] = "finite_displacement"
    symprec_angstrom: float
    parity: Parity
    parity_averaged: bool
    displacements_fc3: dict[str, Any] | None
    forces_fc3: Array | None
    displacements_fc2: dict[str, Any]
    forces_fc2: Array
    n_evaluations: int
    seconds: float
    given_to_primitive: Array | None = None
    orientation_spread: Array | None = None
    fc_average: ForceConstantAverage = "none"
    force_spread_fc2_ev_per_angstrom: float | None = None
    force_spread_fc3_ev_per_angstrom: float | None = None
    frame_forces_fc2: Array | None = None
    frame_forces_fc3: Array | None = None


class Instability(Document):
    """The imaginary mode of a crystal with the lowest frequency.

    Attributes
    ----------
    frequency_thz
        Frequency in THz; negative, as the square root of a negative eigenvalue is written.
    q_point
        (3,) wave vector in reduced coordinates of the primitive cell.
    displacement_pattern
        (n, 3) displacements in one primitive cell, the largest with length 1. In the cell at the lattice vector R they
        are multiplied by cos(2 pi q.R) where 2q is a reciprocal lattice vector; elsewhere a mode also has a part that
        is out of phase.
    """

    frequency_thz: float
    q_point: Array
    displacement_pattern: Array


class PhononOutput(Document):
    """Harmonic phonons.

    Cartesian axes are those of the given structure. Atoms are those of the primitive cell `structure`, and q-points
    refer to its reciprocal lattice vectors.

    Attributes
    ----------
    structure
        The primitive cell.
    verdict
        "stable"; "acoustic_noise": negative frequencies near Gamma within the tolerance; "unstable".
    instability
        The lowest imaginary mode of an unstable crystal.
    max_frequency_thz
        Highest frequency in THz.
    min_frequency_thz
        Lowest frequency in THz, negative for an imaginary one.
    max_commensurate_frequency_thz
        Highest frequency in THz at the q-points that phonopy's `get_commensurate_points` gives for the supercell
        matrix, in the basis of the primitive cell, as in the MDR benchmark; None in documents of earlier versions.
    band_labels
        Names of the special points of the band path.
    band_label_distances
        Place of each special point on the path.
    band_distances
        (n_points,) place of each point on the path, for every segment.
    band_frequencies_thz
        (n_points, n_bands) frequencies in THz, for every segment.
    dos_frequencies_thz
        (n,) frequencies of the density of states in THz.
    dos_states_per_thz
        (n,) density of states in states per THz.
    projected_dos_states_per_thz
        (n_atoms_primitive, n) density of states of each atom in states per THz.
    temperatures_kelvin
        Temperatures of the thermal properties in Kelvin.
    free_energy_kj_per_mol
        Helmholtz free energy in kJ per mole of primitive cells.
    entropy_j_per_k_mol
        Entropy in J/K per mole of primitive cells.
    heat_capacity_j_per_k_mol
        Heat capacity at constant volume in J/K per mole of primitive cells.
    force_constants_ev_per_angstrom2
        (n_primitive, n_supercell, 3, 3) force constants in eV/Angstrom^2: the first index runs over the primitive cell.
    given_to_primitive
        (n_given,) index in the primitive cell of each atom of the relaxed structure, in the order in which it was
        given; None in documents of earlier versions.
    fc_average
        Over what the forces were averaged.
    fc_residuals
        Deviations of the force constants from their exact properties ("space_group", "permutation", "translation"),
        relative to their norm and before they were imposed; None where forces were not averaged.
    force_spread_ev_per_angstrom
        Root mean square deviation of force components from their mean over equivalent supercells or orientations.
    band_frequency_errors_thz
        (n_points, n_bands) standard errors of the frequencies of every segment in THz, from random orientations.
    max_frequency_error_thz
        Standard error of the highest frequency on the path in THz.
    """

    structure: StructureData
    verdict: Literal["stable", "acoustic_noise", "unstable"]
    instability: Instability | None
    max_frequency_thz: float
    min_frequency_thz: float
    max_commensurate_frequency_thz: float | None = None
    band_labels: list[str]
    band_label_distances: Array
    band_distances: list[Array]
    band_frequencies_thz: list[Array]
    dos_frequencies_thz: Array
    dos_states_per_thz: Array
    projected_dos_states_per_thz: Array | None
    temperatures_kelvin: Array
    free_energy_kj_per_mol: Array
    entropy_j_per_k_mol: Array
    heat_capacity_j_per_k_mol: Array
    force_constants_ev_per_angstrom2: Array
    given_to_primitive: Array | None = None
    orientation_spread: Array | None = None
    fc_average: ForceConstantAverage = "none"
    fc_residuals: dict[str, float] | None = None
    force_spread_ev_per_angstrom: float | None = None
    band_frequency_errors_thz: list[Array] | None = None
    max_frequency_error_thz: float | None = None


class TransportResult(Document):
    """Thermal conductivity by one method, as tensors in Voigt order xx, yy, zz, yz, xz, xy.

    Attributes
    ----------
    kappa_w_per_m_k
        (n_temperatures, 6) total conductivity in W/m/K.
    kappa_particle_w_per_m_k
        (n_temperatures, 6) part of the populations in W/m/K, for the Wigner method.
    kappa_coherence_w_per_m_k
        (n_temperatures, 6) part of the coherences between bands in W/m/K, for the Wigner method.
    kappa_error_w_per_m_k
        (n_temperatures, 6) standard errors in W/m/K, from random orientations.
    mean_kappa_error_w_per_m_k
        (n_temperatures,) standard errors of the mean of xx, yy and zz in W/m/K, whose errors are correlated.
    """

    kappa_w_per_m_k: Array
    kappa_particle_w_per_m_k: Array | None
    kappa_coherence_w_per_m_k: Array | None
    kappa_error_w_per_m_k: Array | None = None
    mean_kappa_error_w_per_m_k: Array | None = None


class ConductivityOutput(Document):
    """Lattice thermal conductivity.

    Cartesian axes, along which the tensors are, are those of the given structure. Atoms are those of the primitive cell
    `structure`, q-points refer to its reciprocal lattice vectors.

    The fields from `mode_kappa_w_per_m_k` on are missing in documents of earlier versions.

    Attributes
    ----------
    structure
        The primitive cell.
    temperatures_kelvin
        (n_temperatures,) temperatures in Kelvin.
    mesh
        Mesh of q-points.
    methods
        Conductivity by each method: "rta", "wigner", "lbte".
    frequencies_thz
        (n_q, n_bands) frequencies in THz at the irreducible q-points.
    q_points
        (n_q, 3) irreducible q-points in reduced coordinates.
    q_weights
        (n_q,) number of equivalent q-points of each.
    linewidths_thz
        (n_temperatures, n_q, n_bands) phono3py's gamma in THz, the half width at half maximum.
    group_velocities_m_per_s
        (n_q, n_bands, 3) group velocities in m/s.
    cumulative_frequencies_thz
        (n,) frequencies of the cumulative conductivity in THz.
    cumulative_kappa_w_per_m_k
        (n,) conductivity of the modes below each frequency in W/m/K: mean of xx, yy and zz in the relaxation-time
        approximation.
    cumulative_temperature_kelvin
        Temperature of the cumulative conductivity in Kelvin, the one nearest to 300 K.
    max_frequency_thz
        Highest frequency in THz.
    min_frequency_thz
        Lowest frequency in THz.
    fc2_ev_per_angstrom2
        (n_primitive, n_supercell, 3, 3) harmonic force constants in eV/Angstrom^2.
    fc3_ev_per_angstrom3
        (n_primitive, n_supercell, n_supercell, 3, 3, 3) third-order force constants in eV/Angstrom^3.
    seconds_force_constants
        Wall time of the force constants.
    seconds_transport
        Wall time of linewidths and conductivity.
    phono3py_version
        Version of phono3py.
    backend
        Implementation inside phono3py.
    mode_kappa_w_per_m_k
        (n_q, n_bands) contribution of each mode in W/m/K at the temperature nearest to 300 K, by method and for the
        relaxation-time approximation. Their sum is the mean of xx, yy and zz.
    lifetimes_ps
        (n_q, n_bands) lifetimes in ps by all scattering of the relaxation-time approximation, at the same temperature.
    seconds_forces
        Wall time of the forces from which this result was made.
    given_to_primitive
        (n_given,) index in the primitive cell of each atom of the relaxed structure, in the order in which it was
        given.
    fc_average
        Over what the forces were averaged.
    fc_residuals
        Deviations of the force constants from their exact properties, by order and kind ("fc3_space_group"), relative
        to their norm and before they were imposed; None where forces were not averaged.
    force_spread_ev_per_angstrom
        Root mean square deviation of force components of the third order from their mean.
    """

    structure: StructureData
    temperatures_kelvin: Array
    mesh: tuple[int, int, int]
    methods: dict[str, TransportResult]
    frequencies_thz: Array
    q_points: Array
    q_weights: Array
    linewidths_thz: Array
    group_velocities_m_per_s: Array
    cumulative_frequencies_thz: Array
    cumulative_kappa_w_per_m_k: Array
    cumulative_temperature_kelvin: float
    max_frequency_thz: float
    min_frequency_thz: float
    fc2_ev_per_angstrom2: Array
    fc3_ev_per_angstrom3: Array
    seconds_force_constants: float
    seconds_transport: float
    phono3py_version: str
    backend: str
    mode_kappa_w_per_m_k: dict[str, Array] | None = None
    lifetimes_ps: Array | None = None
    seconds_forces: float | None = None
    given_to_primitive: Array | None = None
    orientation_spread: Array | None = None
    fc_average: ForceConstantAverage = "none"
    fc_residuals: dict[str, float] | None = None
    force_spread_ev_per_angstrom: float | None = None
