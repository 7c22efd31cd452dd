"""The audit of a force field as a jobflow flow."""

from dataclasses import dataclass, field

from esen_flows.makers.core import ModelMaker
from esen_flows.schemas.audit import AuditProtocol


@dataclass
class AuditMaker(ModelMaker):
    """Measure conservation, smoothness and symmetry of a force field, and judge them by limits.

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
        Systems and limits; part of the keys. Other limits make no force call.

    Examples
    --------
    >>> [job.name for job in AuditMaker(force_field_name="emt").make().jobs]
    ['audit measurements', 'audit']
    """

    name: str = "audit"
    protocol: AuditProtocol = field(default_factory=AuditProtocol)
