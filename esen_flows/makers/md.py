"""Molecular dynamics as a jobflow job."""

from dataclasses import dataclass, field

from esen_flows.makers.core import StructureMaker
from esen_flows.schemas.md import MDProtocol


@dataclass
class MDMaker(StructureMaker):
    """Move the atoms of a structure in its constant cell.

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
        Integrator, time, temperature and seed, under atomate2's names; part of the key.

    Examples
    --------
    >>> from ase.build import bulk
    >>> protocol = MDProtocol(ensemble="nve", n_steps=2000, time_step=1.0, temperature=600.0)
    >>> MDMaker(force_field_name="emt", protocol=protocol).make(bulk("Cu")).name
    'md'
    """

    name: str = "md"
    protocol: MDProtocol = field(default_factory=MDProtocol)
