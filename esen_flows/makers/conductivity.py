"""Lattice thermal conductivity as a jobflow flow."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ase import Atoms
from jobflow import Flow

from esen_flows.makers.core import PropertyMaker, lattice_flow
from esen_flows.makers.jobs import conductivity_job
from esen_flows.schemas.protocols import ConductivityProtocol
from esen_flows.schemas.requests import conductivity_requests

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass
class ConductivityMaker(PropertyMaker):
    """Relax, evaluate displaced supercells, solve for transport; the output refers to the last result."""

    name: str = "conductivity"
    protocol: ConductivityProtocol = field(default_factory=ConductivityProtocol)

    def make(self, structure: "Atoms | Structure", prev_dir: str | None = None) -> Flow:
        """The flow. `prev_dir` is accepted as in atomate2 and unused: nothing is handed over in folders."""
        return lattice_flow(
            self,
            structure,
            lambda structure_key, model_key: conductivity_requests(
                structure_key, model_key, self.protocol, self.numeric
            ),
            conductivity_job,
        )
