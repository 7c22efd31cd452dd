"""Relaxation as a jobflow job."""

from dataclasses import dataclass, field
from typing import ClassVar

from ase import Atoms
from jobflow import Job

from esen_flows.makers.core import StructureMaker
from esen_flows.makers.jobs import relax_job
from esen_flows.schemas.card import ModelReference
from esen_flows.schemas.documents import Kind
from esen_flows.schemas.keys import atoms_key
from esen_flows.schemas.protocols import RelaxProtocol
from esen_flows.schemas.requests import relax_request


@dataclass
class RelaxMaker(StructureMaker):
    """Relax a structure.

    Parameters
    ----------
    name
        Name of the job.
    force_field_name
        Name of a model card, path of a checkpoint, or the output of a TrainMaker's job.
    numeric
        Precision and other settings that decide the last digits; part of the key.
    device
        Device of the force calls; not part of the key.
    material_ids, tags
        Noted in the document, for queries.
    protocol
        How the structure is relaxed; part of the key.

    Examples
    --------
    >>> from ase.build import bulk
    >>> RelaxMaker(force_field_name="emt").make(bulk("Cu")).name
    'relax'
    """

    name: str = "relax"
    protocol: RelaxProtocol = field(default_factory=RelaxProtocol)

    kind: ClassVar[Kind] = "relax"

    def make_one(self, atoms: Atoms, model: ModelReference) -> Job:
        """Make the job of one structure.

        Parameters
        ----------
        atoms
            The structure.
        model
            The force field.

        Returns
        -------
        Job
            Its output is {kind, key, summary} of the stored result with the relaxed structure, its energy (eV), forces
            (eV/Angstrom) and stress under atomate2's names; see `jobs.relax_job`.
        """
        request = relax_request(atoms_key(atoms), model.key, self.protocol, self.numeric)
        return self._step(relax_job, atoms, model, request)
