"""Harmonic phonons as a jobflow flow."""

from dataclasses import dataclass, field

from esen_flows.makers.core import StructureMaker
from esen_flows.schemas.protocols import PhononProtocol


@dataclass
class PhononMaker(StructureMaker):
    """Relax, evaluate displaced supercells, compute phonons.

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
    >>> flow = PhononMaker(force_field_name="emt").make(bulk("Cu"))
    >>> [job.name for job in flow.jobs]
    ['phonon relax', 'phonon forces', 'phonon']
    """

    name: str = "phonon"
    protocol: PhononProtocol = field(default_factory=PhononProtocol)
