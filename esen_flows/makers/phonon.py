"""Harmonic phonons as a jobflow flow."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ase import Atoms
from jobflow import Flow

from esen_flows.makers.core import PropertyMaker, lattice_flow
from esen_flows.makers.jobs import phonon_job
from esen_flows.schemas.protocols import PhononProtocol

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass
class PhononMaker(PropertyMaker):
    """Relax, evaluate displaced supercells, compute phonons.

    Parameters
    ----------
    name
        Name of the flow.
    force_field_name
        Name of a model card, or path of a checkpoint.
    numeric
        Precision and other settings that decide the last digits; part of every key.
    device
        Device of the force calls; not part of a key.
    material_ids, tags
        Noted in the documents, for queries.
    protocol
        How each step is computed; part of the keys.

    Examples
    --------
    >>> from ase.build import bulk
    >>> flow = PhononMaker(force_field_name="emt").make(bulk("Cu"))
    >>> [job.name for job in flow.jobs]
    ['phonon relax', 'phonon forces', 'phonon']
    """

    name: str = "phonon"
    protocol: PhononProtocol = field(default_factory=PhononProtocol)

    def make(self, structure: "Atoms | Structure", prev_dir: str | None = None) -> Flow:
        """Make the flow for a structure. Nothing is computed before it runs.

        Parameters
        ----------
        structure
            The input structure.
        prev_dir
            Accepted as in atomate2, and unused: nothing is handed over in folders.

        Returns
        -------
        Flow
            Three jobs; the output is {kind, key, summary} of the last result.

        Raises
        ------
        NotConservativeError, NotDifferentiableError
            The force field does not declare what the protocol needs.
        InputError
            The protocol's Born charges are those of another crystal.
        """
        return lattice_flow(self, structure, self.protocol, phonon_job)
