"""Equation of state as a jobflow flow."""

from dataclasses import dataclass, field

from esen_flows.makers.core import StructureMaker
from esen_flows.schemas.eos import EosProtocol


@dataclass
class EosMaker(StructureMaker):
    """Relax, relax at a series of volumes, fit equations of state.

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
        How each step is computed; part of the keys. `linear_strain` and `number_of_frames` are those of atomate2.

    Examples
    --------
    >>> from ase.build import bulk
    >>> flow = EosMaker(force_field_name="emt").make(bulk("Cu"))
    >>> [job.name for job in flow.jobs][-2:], len(flow.jobs)
    (['eos relax 9', 'eos'], 11)
    """

    name: str = "eos"
    protocol: EosProtocol = field(default_factory=EosProtocol)
