"""Energy, forces and stress of structures as they are, as a jobflow job."""

from dataclasses import dataclass, field

from esen_flows.makers.core import StructureMaker
from esen_flows.schemas.protocols import StaticProtocol


@dataclass
class StaticMaker(StructureMaker):
    """Evaluate a structure as it is.

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
        How mirror images are treated; part of the key.

    Examples
    --------
    >>> from ase.build import bulk
    >>> StaticMaker(force_field_name="emt").make(bulk("Cu")).name
    'static'
    """

    name: str = "static"
    protocol: StaticProtocol = field(default_factory=StaticProtocol)
