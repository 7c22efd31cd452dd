"""The parts of an exploration as results of their own, each claimed, computed and stored under its key.

A locked relaxation, displaced forces and branches that are stored already are read instead, so that an interrupted
exploration continues where it was, and a plain locked relaxation or phonons of the same structure share them.
"""

from collections.abc import Callable

from ase import Atoms

from esen_flows.forcefield.contract import ForceField
from esen_flows.makers import summaries
from esen_flows.makers.compute import Context, Meter, Summary, compute_once
from esen_flows.makers.domains import measured_domain
from esen_flows.physics.branches import relax_branch
from esen_flows.physics.exploration import Found, Steps
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.physics.lattice.soft_modes import SoftMode
from esen_flows.physics.relax import relax
from esen_flows.schemas.branch_documents import BranchOutput
from esen_flows.schemas.branches import FORCES, STRUCTURE, BranchProtocol
from esen_flows.schemas.documents import Document, RelaxOutput, ResultDocument
from esen_flows.schemas.lattice_documents import ForcesOutput
from esen_flows.schemas.protocols import DisplacementProtocol, RelaxProtocol
from esen_flows.schemas.requests import ResultRequest, following_request
from esen_flows.store.results import Store

Compute = Callable[[ForceField], tuple[Document, Summary]]


class StoredSteps(Steps):
    """The steps of an exploration through the store.

    Parameters
    ----------
    store
        Store of the results.
    request
        Request of the exploration.
    context
        What the documents repeat of structure and force field.
    force_field
        Force field.
    location
        Name of its card, or path of its checkpoint.
    """

    def __init__(
        self, store: Store, request: ResultRequest, context: Context, force_field: ForceField, location: str | None
    ) -> None:
        super().__init__(force_field)
        self._store, self._request, self._context, self._location = store, request, context, location

    def locked(self, atoms: Atoms, protocol: RelaxProtocol) -> Found:
        """The relaxation with all symmetry of the start, under the key that it has without an exploration.

        Parameters
        ----------
        atoms
            The start.
        protocol
            Relaxation with symmetry="lock".

        Returns
        -------
        Found
            The relaxed structure.
        """
        parents = {} if self._request.starts_from_input else {"": self._request.parent_key}
        request = following_request(self._request, "relax", protocol, parents)

        def compute(force_field: ForceField) -> tuple[Document, Summary]:
            output = relax(atoms, force_field, protocol)
            return output, summaries.relax_summary(output)

        document = self._once(request, compute, atoms)
        return Found(RelaxOutput.model_validate(document.output), document.key)

    def forces(self, found: Found, protocol: DisplacementProtocol) -> tuple[ForcesOutput, str]:
        """Displaced forces of a structure, and the key of their result.

        Parameters
        ----------
        found
            The structure.
        protocol
            Its supercell and displacements.

        Returns
        -------
        tuple[ForcesOutput, str]
            The forces and their key.
        """
        request = following_request(self._request, "forces", protocol, {"": found.key})

        atoms = found.output.structure.to_atoms()

        def compute(force_field: ForceField) -> tuple[Document, Summary]:
            output = displaced_forces(atoms, force_field, protocol)
            return output, summaries.forces_summary(output)

        document = self._once(request, compute, atoms)
        return ForcesOutput.model_validate(document.output), document.key

    def branch(self, found: Found, forces_key: str, mode: SoftMode, protocol: BranchProtocol) -> Found:
        """A branch of a structure.

        Parameters
        ----------
        found
            The structure.
        forces_key
            Key of its displaced forces.
        mode
            The mode that the protocol names.
        protocol
            The protocol of the branch.

        Returns
        -------
        Found
            The relaxed structure, whose output is a BranchOutput.
        """

        def compute(force_field: ForceField) -> tuple[Document, Summary]:
            output = relax_branch(mode, force_field, protocol)
            return output, summaries.branch_summary(output)

        document = self._once(
            self._branch_request(found, forces_key, protocol), compute, found.output.structure.to_atoms()
        )
        return Found(BranchOutput.model_validate(document.output), document.key)

    def key_of(self, found: Found, forces_key: str, protocol: BranchProtocol) -> str:
        """Key under which a branch is stored, its failure too.

        Parameters
        ----------
        found
            The structure.
        forces_key
            Key of its displaced forces.
        protocol
            The protocol of the branch.

        Returns
        -------
        str
            The key.
        """
        return self._branch_request(found, forces_key, protocol).key

    def _branch_request(self, found: Found, forces_key: str, protocol: BranchProtocol) -> ResultRequest:
        return following_request(self._request, "branch", protocol, {STRUCTURE: found.key, FORCES: forces_key})

    def _once(self, request: ResultRequest, compute: Compute, start: Atoms) -> ResultDocument:
        def measured(meter: Meter) -> tuple[Document, Summary]:
            output, summary = compute(meter.watch(self.force_field))
            return output, summary | measured_domain(self.force_field, self._location, start, output)

        return compute_once(self._store, request, self._context, measured)
