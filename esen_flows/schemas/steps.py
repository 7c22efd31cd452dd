"""The steps to each property, which follow from its protocol."""

from esen_flows.schemas.property_entry import Step
from esen_flows.schemas.protocols import (
    ConductivityProtocol,
    HarmonicProtocol,
    PhononProtocol,
    RelaxProtocol,
    StaticProtocol,
    TransportProtocol,
)


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


def phonon_steps(protocol: PhononProtocol) -> tuple[Step, ...]:
    """The steps to harmonic phonons.

    Parameters
    ----------
    protocol
        Protocol of the phonons.

    Returns
    -------
    tuple[Step, ...]
        Relaxation, forces of displaced supercells, phonons.
    """
    return (*_displaced_steps(protocol), Step("phonon", HarmonicProtocol.of(protocol), (("", 1),)))


def transport_steps(protocol: ConductivityProtocol) -> tuple[Step, ...]:
    """The steps to lattice thermal conductivity.

    Parameters
    ----------
    protocol
        Protocol of the conductivity.

    Returns
    -------
    tuple[Step, ...]
        Relaxation, forces of displaced supercells, conductivity.
    """
    return (*_displaced_steps(protocol), Step("conductivity", TransportProtocol.of(protocol), (("", 1),)))


def _displaced_steps(protocol: PhononProtocol | ConductivityProtocol) -> tuple[Step, Step]:
    displacement = protocol.displacement
    # With the parity of the displacements, so that all force calls of a flow see one energy surface.
    relaxation = protocol.relax.model_copy(update={"parity": displacement.parity})
    return Step("relax", relaxation), Step("forces", displacement, (("", 0),))
