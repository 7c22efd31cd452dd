"""Harmonic phonons as a jobflow flow."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ase import Atoms
from jobflow import Flow

from esen_flows.makers.core import PropertyMaker, lattice_flow
from esen_flows.makers.jobs import phonon_job
from esen_flows.schemas.protocols import PhononProtocol
from esen_flows.schemas.requests import phonon_requests

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass
class PhononMaker(PropertyMaker):
    """Relax, evaluate displaced supercells, compute phonons; the output refers to the last result."""

    name: str = "phonon"
    protocol: PhononProtocol = field(default_factory=PhononProtocol)

    def make(self, structure: "Atoms | Structure", prev_dir: str | None = None) -> Flow:
        """The flow. `prev_dir` is accepted as in atomate2 and unused: nothing is handed over in folders."""
        return lattice_flow(
            self,
            structure,
            lambda structure_key, model_key: phonon_requests(structure_key, model_key, self.protocol, self.numeric),
            phonon_job,
        )
