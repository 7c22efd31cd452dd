"""Curves of diatomic molecules as a jobflow job."""

from dataclasses import dataclass, field

from esen_flows.makers.core import ModelMaker
from esen_flows.schemas.diatomics import DiatomicsProtocol


@dataclass
class DiatomicsMaker(ModelMaker):
    """Energies and forces of pairs of equal atoms at increasing separations, a property of the force field itself.

    Parameters
    ----------
    name
        Name of the job.
    force_field_name
        Name of a model card, path of a checkpoint, or the output of a TrainMaker's job.
    numeric
        Precision and other settings that decide the last digits; part of every key.
    device
        Device of the force calls; not part of a key.
    material_ids, tags
        Noted in the documents, for queries.
    protocol
        Elements, separations and box; part of the key.

    Examples
    --------
    >>> DiatomicsMaker(force_field_name="emt").make().name
    'diatomics'
    """

    name: str = "diatomics"
    protocol: DiatomicsProtocol = field(default_factory=DiatomicsProtocol)
