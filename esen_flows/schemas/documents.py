"""The documents that physics returns and the store keeps, with units in the names of their fields.

Every output is the return value of one plain function of `physics/`. `ResultDocument` is its envelope in the store.
Arrays are numpy arrays here; the store packs them.
"""

from datetime import datetime
from typing import Any, Literal

import numpy as np
from ase import Atoms
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from esen_flows.schemas.atom_properties import AtomProperties, properties_of
from esen_flows.schemas.document_base import SCHEMA_VERSION, Array, Document
from esen_flows.schemas.exploration import Branch
from esen_flows.schemas.properties import PROPERTIES, Kind


class StructureData(Document):
    """A structure as arrays.

    Attributes
    ----------
    numbers
        (n,) int64 atomic numbers.
    positions_angstrom
        (n, 3) float64 Cartesian positions in Angstrom.
    cell_angstrom
        (3, 3) float64 cell in Angstrom; rows are lattice vectors.
    pbc
        (3,) bool periodicity along the lattice vectors.
    masses_u
        (n,) float64 masses in u of the atoms that have one of their own, and 0 for the others; None: all have the
        mass of the natural element.
    fixed_cartesian
        (n, 3) bool: fixed Cartesian components; None: there are none.
    fixed_fractional
        (n, 3) bool: fixed components along the lattice vectors; None: there are none.
    """

    numbers: Array
    positions_angstrom: Array
    cell_angstrom: Array
    pbc: Array
    masses_u: Array | None = None
    fixed_cartesian: Array | None = None
    fixed_fractional: Array | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out absent masses and fixed coordinates, so that documents are those of earlier versions."""
        return {name: value for name, value in serialize(self).items() if value is not None}

    @property
    def properties(self) -> AtomProperties:
        """Own masses and fixed coordinates."""
        return AtomProperties(self.masses_u, self.fixed_cartesian, self.fixed_fractional)

    @classmethod
    def from_atoms(cls, atoms: Atoms) -> "StructureData":
        """The arrays of an ASE structure.

        Parameters
        ----------
        atoms
            The structure.

        Returns
        -------
        StructureData
            Its arrays, with the order of its atoms.

        Raises
        ------
        StructureError
            A constraint does not fix components of single atoms.
        """
        return cls(
            numbers=np.asarray(atoms.numbers, dtype=np.int64),
            positions_angstrom=np.asarray(atoms.positions, dtype=np.float64),
            cell_angstrom=np.asarray(atoms.cell.array, dtype=np.float64),
            pbc=np.asarray(atoms.pbc, dtype=bool),
            **properties_of(atoms).fields(),
        )

    def to_atoms(self) -> Atoms:
        """The structure for ASE.

        Returns
        -------
        Atoms
            A structure without calculator.
        """
        atoms = Atoms(self.numbers, positions=self.positions_angstrom, cell=self.cell_angstrom, pbc=self.pbc)
        return self.properties.attach(atoms)


class StaticOutput(Document):
    """Energy, forces and stress of a structure as it was given.

    Attributes
    ----------
    structure
        The structure.
    energy_ev
        Its total energy in eV.
    energy_per_atom_ev
        Its energy per atom in eV.
    forces_ev_per_angstrom
        (n, 3) forces in eV/Angstrom.
    stress_ev_per_angstrom3
        (3, 3) stress in eV/Angstrom^3, positive under tension as in ASE; NaN where the cell has no volume.
    atom_energies_ev
        (n,) energies of the atoms in eV; None for a force field that does not give them.
    orientation_spread
        (3,) for results that are means over rotations: root mean square over the rotations, and over all components, of
        the deviations of the energy per atom (eV), the forces (eV/Angstrom) and the stress (eV/Angstrom^3); None where
        nothing was averaged over rotations.
    """

    structure: StructureData
    energy_ev: float
    energy_per_atom_ev: float
    forces_ev_per_angstrom: Array
    stress_ev_per_angstrom3: Array
    atom_energies_ev: Array | None = None
    orientation_spread: Array | None = None


class RelaxOutput(Document):
    """A relaxed structure.

    Attributes
    ----------
    structure
        Structure after the last step.
    energy_ev
        Its total energy in eV.
    energy_per_atom_ev
        Its energy per atom in eV.
    forces_ev_per_angstrom
        (n, 3) forces in eV/Angstrom.
    stress_ev_per_angstrom3
        (3, 3) stress in eV/Angstrom^3, positive under tension as in ASE.
    n_steps
        Number of steps.
    converged
        Whether the largest force fell below the limit of the protocol.
    fmax_ev_per_angstrom
        Largest force in eV/Angstrom after the last step, that on the cell included.
    volume_per_atom_angstrom3
        Volume per atom in Angstrom^3.
    space_group_initial
        International number of the space group before the relaxation; None for a structure that is not a crystal.
    space_group_final
        International number of the space group after the relaxation.
    energies_ev
        (n_steps + 1,) total energy in eV along the relaxation.
    positions_path_angstrom
        (n_steps + 1, n, 3) positions in Angstrom along the relaxation, where the protocol asks for the trajectory.
    cells_path_angstrom
        (n_steps + 1, 3, 3) cells in Angstrom along the relaxation, likewise.
    redirected
        For a relaxation in two stages: whether the stage without symmetry changed the space group and was discarded.
    orientation_spread
        (3,) as that of a `StaticOutput`, of the last step.
    branches
        For a relaxation with symmetry="explore": all structures that were found. This one is the lowest of them.
    """

    structure: StructureData
    energy_ev: float
    energy_per_atom_ev: float
    forces_ev_per_angstrom: Array
    stress_ev_per_angstrom3: Array
    n_steps: int
    converged: bool
    fmax_ev_per_angstrom: float
    volume_per_atom_angstrom3: float
    space_group_initial: int | None
    space_group_final: int | None
    energies_ev: Array
    positions_path_angstrom: Array | None = None
    cells_path_angstrom: Array | None = None
    redirected: bool | None = None
    orientation_spread: Array | None = None
    branches: list[Branch] | None = None


class Failure(Document):
    """Reason why a result does not exist.

    Attributes
    ----------
    error
        Name of the error's type.
    message
        Its message.
    final
        Whether the failure is an answer, which is not tried again; other failures are pending work.
    """

    error: str
    message: str
    final: bool


class Provenance(Document):
    """Versions, machine and cost of a result.

    Attributes
    ----------
    package_version
        Version of esen_flows.
    git_revision
        Revision of the checkout, "-dirty" after local changes; None outside of a checkout.
    libraries
        Versions of the installed libraries on which numbers depend.
    python
        Version of Python.
    device
        Device of the force calls, such as "cpu" or "cuda:0".
    host
        Name of the machine.
    threads
        Threads of a force call.
    seconds
        Wall time of the step.
    force_evaluations
        Number of structures evaluated for the step.
    firework_id
        Id of the firework; None for a result that was computed without FireWorks.
    """

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
    """One stored result with its keys.

    Attributes
    ----------
    schema_version
        Version of the layout of this document.
    kind
        Step that was computed.
    key
        Result key, a hash of everything below that decides the numbers.
    parent_key
        Key of the structure, dataset or result from which the step starts; `requests.parents_key` of several.
    parents
        Keys of several results on which the step builds, by their roles; empty for a single one.
    structure_key
        Key of the input structure, dataset or force field at the root of the chain.
    model_key
        Key of the force field.
    model_label
        Name of the force field for people.
    protocol
        Protocol of the step.
    protocol_hash
        Its hash.
    numeric
        Numeric settings of the step.
    numerics_revision
        Revision of the step's numerics, see `property_entry.Property`.
    attempt
        Number of the computation of this key, counted from 0; forced recomputations count up.
    current
        Whether this attempt is the one that queries return.
    state
        Whether there is an output or a failure.
    failure
        Reason of a failed result.
    formula
        Reduced formula; None for a result about a dataset or a model. Earlier versions wrote a chemical system here.
    chemsys
        Element symbols in alphabetical order with hyphens between them, likewise.
    elements
        Element symbols in alphabetical order.
    nsites
        Number of atoms; None for a result about a dataset or a model.
    space_group_number
        International number of the space group; None for a structure that is not a crystal.
    space_group_symbol
        Its international symbol.
    material_ids
        Ids of the material in other databases.
    tags
        Tags of the user, and names of campaigns.
    summary
        The numbers that tables and queries show, by name.
    output
        The step's output; the store packs its arrays, inline or as blobs.
    provenance
        Versions, machine and cost.
    created_at
        Time of storage, UTC.
    """

    schema_version: int = SCHEMA_VERSION
    kind: Kind
    key: str
    parent_key: str
    parents: dict[str, str] = Field(default_factory=dict)
    structure_key: str
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
    formula: str | None = None
    chemsys: str | None = None
    elements: list[str] = Field(default_factory=list)
    nsites: int | None = None
    space_group_number: int | None = None
    space_group_symbol: str | None = None
    material_ids: list[str] = Field(default_factory=list)
    tags: list[str] = Field(default_factory=list)
    summary: dict[str, float | int | str | bool | None] = Field(default_factory=dict)
    output: dict[str, Any] | None
    provenance: Provenance
    created_at: datetime

    @property
    def subject_name(self) -> str:
        """What the result is about, for people: the formula of a structure, or the name of a dataset or model."""
        subject = PROPERTIES[self.kind].subject
        if subject == "structure":
            return self.formula or "structure"
        if subject == "model":
            return self.model_label
        named = (self.summary.get(name) for name in ("dataset_name", "name"))
        return str(next(filter(None, named), subject))
