"""Relaxation as a jobflow job."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ase import Atoms
from jobflow import Job, job

from esen_flows.makers.core import PropertyMaker, keyed
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
    """Relax a structure; the job's output is {kind, key, summary} of the stored result."""

    name: str = "relax"
    protocol: RelaxProtocol = field(default_factory=RelaxProtocol)

    def make(self, structure: "Atoms | Structure", prev_dir: str | None = None) -> Job:
        """The job. `prev_dir` is accepted as in atomate2 and unused: nothing is handed over in folders."""
        atoms, model = as_atoms(structure), resolve_model(self.force_field_name)
        request = relax_request(atoms_key(atoms), model.key, self.protocol, self.numeric)
        return keyed(job(relax_job)(**self.arguments(atoms, model, request)), request, self.name)
