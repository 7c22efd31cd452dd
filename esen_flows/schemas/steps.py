"""The steps to each property, which follow from its protocol."""

from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.property_entry import Step
from esen_flows.schemas.protocols import ConductivityProtocol, PhononProtocol, RelaxProtocol, StaticProtocol


def relax_steps(protocol: RelaxProtocol) -> tuple[Step, ...]:
    """The only step of a relaxation.

    Parameters
    ----------
    protocol
        Protocol of the relaxation.

    Returns
    -------
    tuple[Step, ...]
        The relaxation.
    """
    return (Step("relax", protocol),)


def static_steps(protocol: StaticProtocol) -> tuple[Step, ...]:
    """The only step of a static evaluation.

    Parameters
    ----------
    protocol
        Protocol of the evaluation.

    Returns
    -------
    tuple[Step, ...]
        The evaluation.
    """
    return (Step("static", protocol),)


def lattice_steps(kind: str, part: type[Frozen], protocol: PhononProtocol | ConductivityProtocol) -> tuple[Step, ...]:
    """The steps to a property that follows from the forces of displaced supercells.

    Parameters
    ----------
    kind
        The property.
    part
        Class of the part of the protocol that its last step needs.
    protocol
        Protocol of the property.

    Returns
    -------
    tuple[Step, ...]
        Relaxation, forces of displaced supercells, the property.
    """
    displacement = protocol.displacement
    # With the forces of the displacements, so that all force calls of a flow see one energy surface.
    same = {name: getattr(displacement, name) for name in ("parity", "forces", "force_symmetry")}
    relaxation = protocol.relax.model_copy(update=same)
    last = Step(kind, part.of(protocol), (("", 1),))
    return Step("relax", relaxation), Step("forces", displacement, (("", 0),)), last
