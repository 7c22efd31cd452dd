"""The documents that physics returns and the store keeps. Arrays are numpy here; the store packs them.

Every output is what one plain function of `physics/` gives back; `ResultDocument` is the envelope that the store adds
its keys to. Units are in the field names.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import numpy as np
from ase import Atoms
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Array = Annotated[np.ndarray, BeforeValidator(np.asarray)]
SCHEMA_VERSION = 1
Kind = Literal["relax", "forces", "phonon", "conductivity", "labelling", "training", "evaluation"]


class Document(BaseModel):
    """Base of all documents: arrays allowed, unknown fields refused."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")


class StructureData(Document):
    """A structure as arrays: numbers (n,), positions (n, 3) and cell (3, 3) in Angstrom, pbc (3,)."""

    numbers: Array
    positions_angstrom: Array
    cell_angstrom: Array
    pbc: Array

    @classmethod
    def from_atoms(cls, atoms: Atoms) -> "StructureData":
        """The structure of an ASE Atoms object, in its order."""
        return cls(
            numbers=np.asarray(atoms.numbers, dtype=np.int64),
            positions_angstrom=np.asarray(atoms.positions, dtype=np.float64),
            cell_angstrom=np.asarray(atoms.cell.array, dtype=np.float64),
            pbc=np.asarray(atoms.pbc, dtype=bool),
        )

    def to_atoms(self) -> Atoms:
        """An ASE Atoms object."""
        return Atoms(self.numbers, positions=self.positions_angstrom, cell=self.cell_angstrom, pbc=self.pbc)


class RelaxOutput(Document):
    """A relaxed structure."""

    structure: StructureData
    energy_ev: float
    energy_per_atom_ev: float
    forces_ev_per_angstrom: Array  # (n, 3)
    stress_ev_per_angstrom3: Array  # (3, 3)
    n_steps: int
    converged: bool
    fmax_ev_per_angstrom: float
    volume_per_atom_angstrom3: float
    space_group_initial: int | None
    space_group_final: int | None
    energies_ev: Array  # (n_steps + 1,) energy along the path
    positions_path_angstrom: Array | None = None  # (n_steps + 1, n, 3) where the protocol asks for the trajectory
    cells_path_angstrom: Array | None = None  # (n_steps + 1, 3, 3)
    redirected: bool | None = None  # of two stages: whether the free one broke the symmetry and was thrown away


class ForcesOutput(Document):
    """Forces of displaced supercells, with all that force constants need: no structure is ever evaluated again.

    For order 2 the fc3 fields are None. With force constants by autodiff, forces are what the displacements add to
    first order in the last one, by exact Hessians: -H u, and of a pair -H u - H(u) w.
    """

    unitcell: StructureData
    supercell_matrix_fc3: Array | None  # (3, 3) integers, rows as phonopy's
    supercell_matrix_fc2: Array
    primitive_matrix: Array  # (3, 3)
    displacement_angstrom: float
    force_constants: Literal["finite_displacement", "autodiff"] = "finite_displacement"
    symprec_angstrom: float
    parity: Literal["average", "as_is"]
    parity_averaged: bool  # whether averaging was really needed and done
    displacements_fc3: dict[str, Any] | None  # phono3py's displacement dataset without forces
    forces_fc3: Array | None  # (n_displacements, n_atoms, 3) in eV/Angstrom
    displacements_fc2: dict[str, Any]
    forces_fc2: Array
    # Of the process that finished; what it took over from one that was broken off is not in them.
    n_evaluations: int
    seconds: float


class Instability(Document):
    """The worst imaginary mode of a crystal."""

    frequency_thz: float  # negative
    q_point: Array  # (3,) reduced coordinates of the primitive cell
    # (n, 3) displacements in one primitive cell, the largest 1. In the cell at the lattice vector R they are times
    # cos(2 pi q.R) where 2q is a reciprocal lattice vector; elsewhere a mode also has a part that lags behind.
    displacement_pattern: Array


class PhononOutput(Document):
    """Harmonic phonons."""

    structure: StructureData  # the primitive cell
    verdict: Literal["stable", "acoustic_noise", "unstable"]
    instability: Instability | None
    max_frequency_thz: float
    min_frequency_thz: float
    band_labels: list[str]
    band_label_distances: Array
    band_distances: list[Array]  # per segment, (n_points,)
    band_frequencies_thz: list[Array]  # per segment, (n_points, n_bands)
    dos_frequencies_thz: Array
    dos_states_per_thz: Array
    projected_dos_states_per_thz: Array | None  # (n_atoms_primitive, n)
    temperatures_kelvin: Array
    free_energy_kj_per_mol: Array
    entropy_j_per_k_mol: Array
    heat_capacity_j_per_k_mol: Array
    force_constants_ev_per_angstrom2: Array  # compact: (n_primitive, n_supercell, 3, 3)


class TransportResult(Document):
    """Thermal conductivity by one method; Voigt order xx yy zz yz xz xy, W/m/K."""

    kappa_w_per_m_k: Array  # (n_temperatures, 6), the total of the method
    kappa_particle_w_per_m_k: Array | None  # Wigner: populations
    kappa_coherence_w_per_m_k: Array | None  # Wigner: coherences


class ConductivityOutput(Document):
    """Lattice thermal conductivity."""

    structure: StructureData  # the primitive cell
    temperatures_kelvin: Array
    mesh: tuple[int, int, int]
    methods: dict[str, TransportResult]  # "rta", "wigner", "lbte"
    frequencies_thz: Array  # (n_q, n_bands) at irreducible q-points
    q_points: Array  # (n_q, 3)
    q_weights: Array  # (n_q,)
    linewidths_thz: Array  # (n_temperatures, n_q, n_bands): phono3py's gamma, half width at half maximum
    group_velocities_m_per_s: Array  # (n_q, n_bands, 3)
    cumulative_frequencies_thz: Array  # at the temperature nearest to 300 K
    cumulative_kappa_w_per_m_k: Array  # (n,), mean of xx, yy, zz by RTA
    cumulative_temperature_kelvin: float
    max_frequency_thz: float
    min_frequency_thz: float
    fc2_ev_per_angstrom2: Array  # compact
    fc3_ev_per_angstrom3: Array  # compact
    seconds_force_constants: float
    seconds_transport: float
    phono3py_version: str
    backend: str
    # At the temperature nearest to 300 K; absent from documents of earlier versions.
    mode_kappa_w_per_m_k: dict[str, Array] | None = None  # by method and RTA, (n_q, n_bands); sum: mean of xx, yy, zz
    lifetimes_ps: Array | None = None  # (n_q, n_bands) by all scattering of the relaxation-time approximation
    seconds_forces: float | None = None  # of the forces that this was made of


class Failure(Document):
    """Why a result does not exist; `final` results are not tried again."""

    error: str  # the type's name
    message: str
    final: bool


class Provenance(Document):
    """Where a result came from."""

    package_version: str
    git_revision: str | None
    libraries: dict[str, str]
    python: str
    device: str
    host: str
    threads: int
    seconds: float
    force_evaluations: int
    firework_id: int | None = None


class ResultDocument(Document):
    """One stored result: the envelope. `output` is packed by the store (arrays inline or as blobs)."""

    schema_version: int = SCHEMA_VERSION
    kind: Kind
    key: str
    parent_key: str
    structure_key: str  # of the input structure, or the dataset, at the root of the chain
    model_key: str
    model_label: str
    protocol: dict[str, Any]
    protocol_hash: str
    numeric: dict[str, Any]
    numerics_revision: int
    attempt: int = 0
    current: bool = True
    state: Literal["finished", "failed"]
    failure: Failure | None = None
    formula: str
    chemsys: str
    elements: list[str]
    nsites: int
    space_group_number: int | None
    space_group_symbol: str | None
    material_ids: list[str] = Field(default_factory=list)
    tags: list[str] = Field(default_factory=list)
    summary: dict[str, float | int | str | bool | None] = Field(default_factory=dict)
    output: dict[str, Any] | None
    provenance: Provenance
    created_at: datetime
