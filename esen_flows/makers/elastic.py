"""Elastic tensor as a jobflow flow."""

from dataclasses import dataclass, field

from esen_flows.makers.core import StructureMaker
from esen_flows.schemas.elastic import ElasticProtocol


@dataclass
class ElasticMaker(StructureMaker):
    """Relax, relax positions in strained cells, fit the elastic tensor.

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
    >>> flow = ElasticMaker(force_field_name="emt").make(bulk("Cu"))
    >>> [job.name for job in flow.jobs]
    ['elastic relax', 'elastic strains', 'elastic']
    """

    name: str = "elastic"
    protocol: ElasticProtocol = field(default_factory=ElasticProtocol)
