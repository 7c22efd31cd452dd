"""Relaxation as a jobflow job."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ase import Atoms
from jobflow import Job

from esen_flows.makers.core import PropertyMaker
from esen_flows.makers.jobs import relax_job
from esen_flows.schemas.card import resolve_model
from esen_flows.schemas.keys import atoms_key
from esen_flows.schemas.protocols import RelaxProtocol
from esen_flows.schemas.requests import relax_request
from esen_flows.structures.conversion import as_atoms

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass
class RelaxMaker(PropertyMaker):
    """Relax a structure.

    Parameters
    ----------
    name
        Name of the job.
    force_field_name
        Name of a model card, or path of a checkpoint.
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

    def make(self, structure: "Atoms | Structure", prev_dir: str | None = None) -> Job:
        """Make the job for a structure. Nothing is computed before it runs.

        Parameters
        ----------
        structure
            The input structure.
        prev_dir
            Accepted as in atomate2, and unused: nothing is handed over in folders.

        Returns
        -------
        Job
            Its output is {kind, key, summary} of the stored result.
        """
        atoms, model = as_atoms(structure), resolve_model(self.force_field_name)
        request = relax_request(atoms_key(atoms), model.key, self.protocol, self.numeric)
        return self._step(relax_job, atoms, model, request)
