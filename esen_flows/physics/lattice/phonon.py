"""Harmonic phonons from displaced forces: bands, densities of states, thermal properties, dynamical stability."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import seekpath
from ase import Atoms

from esen_flows.physics.lattice.born import born_parameters
from esen_flows.physics.lattice.datasets import DensitiesOfStates, Nac, ThermalProperties
from esen_flows.physics.lattice.force_averages import jackknife_error, without_frame
from esen_flows.physics.lattice.harmonic import HarmonicLattice
from esen_flows.physics.lattice.stability import Verdict, stability_verdict
from esen_flows.schemas.atom_properties import properties_of, species_numbers
from esen_flows.schemas.documents import StructureData
from esen_flows.schemas.lattice_documents import ForcesOutput, Instability, PhononOutput
from esen_flows.schemas.protocols import HarmonicProtocol


@dataclass(frozen=True)
class BandPath:
    """A path through the Brillouin zone.

    Attributes
    ----------
    segments
        q-points (n, 3) of each segment, in reduced coordinates of the cell that the path was made for.
    labels
        Labels of the two ends of each segment.
    """

    segments: list[np.ndarray]
    labels: list[tuple[str, str]]


def phonon(forces: ForcesOutput, protocol: HarmonicProtocol, nac: Nac | None = None) -> PhononOutput:
    """Bands along the high-symmetry path, densities of states, thermal properties, and whether the crystal is stable.

    Paths follow Hinuma et al., Comp. Mat. Sci. 128, 140 (2017), for the primitive cell as it is. Thermal properties
    and densities are sampled on phonopy's mesh. Imaginary modes and the three acoustic modes at Gamma do not enter
    thermal properties. The verdict looks at the path, the meshes and the commensurate q-points of the supercell.

    Parameters
    ----------
    forces
        Displaced forces of the second or third order; of the latter the second-order part is used.
    protocol
        Mesh, temperatures, path and tolerance of imaginary modes.
    nac
        Non-analytical correction of a polar crystal: Born charges and dielectric tensor, as `force_sets` reads them.
        None: those of the protocol's `born`, if any.

    Returns
    -------
    PhononOutput
        Frequencies in THz, densities in 1/THz, thermal properties per mole of primitive cells.

    Raises
    ------
    InputError
        The mesh breaks the symmetry of the crystal, or the Born charges belong to another crystal.
    """
    if nac is None and protocol.born is not None:
        nac = born_parameters(protocol.born, forces)
    lattice = HarmonicLattice(forces, nac, remove_drift=protocol.remove_drift, symmetrize=protocol.symmetrize)
    length = protocol.mesh_length_angstrom
    mesh = protocol.mesh if length is None else lattice.divisions(length)
    primitive = lattice.primitive
    path = band_path(primitive, protocol.band_points, forces.symprec_angstrom)
    distances, bands = lattice.bands(path.segments)
    densities = lattice.densities_of_states(mesh)
    thermal = lattice.thermal_properties(mesh, protocol.temperatures_kelvin)
    residuals, errors = lattice.residuals, _errors(lattice, forces, path)
    modes = _all_modes(lattice, path, bands, densities, thermal)
    verdict, instability = _stability(lattice, *modes, protocol.imaginary_tolerance_thz)
    labels, ticks = _ticks(path.labels, distances)
    return PhononOutput(
        structure=StructureData.from_atoms(primitive),
        verdict=verdict,
        instability=instability,
        max_frequency_thz=float(modes[1].max()),
        min_frequency_thz=float(modes[1].min()),
        max_commensurate_frequency_thz=lattice.highest_commensurate_thz(),
        band_labels=labels,
        band_label_distances=ticks,
        band_distances=distances,
        band_frequencies_thz=bands,
        dos_frequencies_thz=densities.sampling,
        dos_states_per_thz=densities.total,
        projected_dos_states_per_thz=densities.projected,
        temperatures_kelvin=np.array(protocol.temperatures_kelvin),
        free_energy_kj_per_mol=thermal.free_energy,
        entropy_j_per_k_mol=thermal.entropy,
        heat_capacity_j_per_k_mol=thermal.heat_capacity,
        force_constants_ev_per_angstrom2=lattice.force_constants,
        given_to_primitive=forces.given_to_primitive,
        fc_average=forces.fc_average,
        fc_residuals=residuals,
        force_spread_ev_per_angstrom=forces.force_spread_fc2_ev_per_angstrom,
        band_frequency_errors_thz=errors,
        max_frequency_error_thz=None if errors is None else _error_of_highest(bands, errors),
    )


def _errors(lattice: HarmonicLattice, forces: ForcesOutput, path: BandPath) -> list[np.ndarray] | None:
    """Standard errors of the frequencies along the path, from random orientations; the lattice is left as it was."""
    if forces.frame_forces_fc2 is None:
        return None
    left_out = []
    for number in range(len(forces.frame_forces_fc2)):
        lattice.use(without_frame(forces, number).forces_fc2)
        left_out.append(lattice.bands(path.segments)[1])
    lattice.use(forces.forces_fc2)
    return [jackknife_error(np.array(segment)) for segment in zip(*left_out, strict=True)]


def _error_of_highest(bands: list[np.ndarray], errors: list[np.ndarray]) -> float:
    """Standard error of the highest frequency on the path."""
    segment = int(np.argmax([frequencies.max() for frequencies in bands]))
    return float(errors[segment].flat[int(bands[segment].argmax())])


def band_path(primitive: Atoms, points: int, symprec_angstrom: float) -> BandPath:
    """The high-symmetry path of a cell, in reduced coordinates of that cell.

    Parameters
    ----------
    primitive
        Primitive cell in any orientation.
    points
        Number of q-points of each segment.
    symprec_angstrom
        Distance tolerance of the symmetry in Angstrom.

    Returns
    -------
    BandPath
        The path.
    """
    numbers = species_numbers(primitive.numbers, properties_of(primitive).masses_u)
    cell = (primitive.cell.array, primitive.get_scaled_positions(), numbers)
    found = seekpath.get_path_orig_cell(cell, symprec=symprec_angstrom)
    ends = [(np.array(found["point_coords"][a]), np.array(found["point_coords"][b])) for a, b in found["path"]]
    return BandPath([np.linspace(a, b, points) for a, b in ends], [(_label(a), _label(b)) for a, b in found["path"]])


def _label(name: str) -> str:
    return name.replace("GAMMA", "Γ").replace("SIGMA", "Σ").replace("DELTA", "Δ").replace("LAMBDA", "Λ")


def _ticks(labels: Sequence[tuple[str, str]], distances: Sequence[np.ndarray]) -> tuple[list[str], np.ndarray]:
    """Labels and distances of the ends of segments; where the path jumps, both labels share one tick: "U|K"."""
    names = [labels[0][0]]
    for index, (_, end) in enumerate(labels):
        following = labels[index + 1][0] if index + 1 < len(labels) else end
        names.append(end if following == end else f"{end}|{following}")
    return names, np.array([distances[0][0], *(d[-1] for d in distances)])


def _all_modes(
    lattice: HarmonicLattice,
    path: BandPath,
    bands: list[np.ndarray],
    densities: DensitiesOfStates,
    thermal: ThermalProperties,
) -> tuple[np.ndarray, np.ndarray]:
    """q-points (n_q, 3) and frequencies (n_q, n_bands) of all samples."""
    commensurate = lattice.commensurate_points()
    q_points = np.concatenate([commensurate, densities.q_points, thermal.q_points, *path.segments])
    frequencies = [lattice.modes(commensurate)[0], densities.frequencies, thermal.frequencies, *bands]
    return q_points, np.concatenate(frequencies)


def _stability(
    lattice: HarmonicLattice, q_points: np.ndarray, frequencies: np.ndarray, tolerance_thz: float
) -> tuple[Verdict, Instability | None]:
    verdict, worst = stability_verdict(
        frequencies, q_points, lattice.primitive.cell.array, lattice.supercell_vectors, tolerance_thz
    )
    instability = None
    if worst is not None:
        instability = Instability(
            frequency_thz=float(frequencies[worst]),
            q_point=q_points[worst[0]],
            displacement_pattern=_pattern(lattice, q_points[worst[0]], worst[1]),
        )
    return verdict, instability


def _pattern(lattice: HarmonicLattice, q_point: np.ndarray, band: int) -> np.ndarray:
    """Displacements (n, 3) in one primitive cell, the largest of length one.

    The phase of phonopy's eigenvectors is taken at the position of each atom. With the phase at its lattice vector
    instead, eigenvectors of a q-point on the edge of the zone can be real, and other cells then move as the document
    describes. The remaining phase is arbitrary: it is chosen so that the largest component is real.
    """
    primitive = lattice.primitive
    vector = lattice.modes(q_point[None])[1][0, :, band].reshape(-1, 3)
    phases = np.exp(2j * np.pi * primitive.get_scaled_positions(wrap=False) @ q_point)
    displacements = vector * (phases / np.sqrt(primitive.get_masses()))[:, None]
    largest = displacements.flat[int(np.argmax(np.abs(displacements)))]
    real = np.real(displacements * np.conj(largest) / abs(largest))
    return np.asarray(real / np.linalg.norm(real, axis=1).max())
