"""Lattice thermal conductivity as a jobflow flow."""

from dataclasses import dataclass, field

from esen_flows.makers.core import StructureMaker
from esen_flows.schemas.protocols import ConductivityProtocol


@dataclass
class ConductivityMaker(StructureMaker):
    """Relax, evaluate displaced supercells, solve for transport.

    Parameters
    ----------
    name
        Name of the flow.
    force_field_name
        Name of a model card, path of a checkpoint, or the output of a TrainMaker's job.
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
    >>> flow = ConductivityMaker(force_field_name="emt").make(bulk("Cu"))
    >>> [job.name for job in flow.jobs]
    ['conductivity relax', 'conductivity forces', 'conductivity']
    """

    name: str = "conductivity"
    protocol: ConductivityProtocol = field(default_factory=ConductivityProtocol)
