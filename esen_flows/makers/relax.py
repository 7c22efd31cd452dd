"""Relaxation as a jobflow job."""

from dataclasses import dataclass, field

from esen_flows.makers.core import StructureMaker
from esen_flows.schemas.protocols import RelaxProtocol


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
