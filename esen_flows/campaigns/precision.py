"""Which precision a campaign needs, and what a higher one costs.

The default precision never depends on the device, because it is part of every key.
"""

from collections.abc import Sequence

from esen_flows.schemas.campaign import CampaignSpec, protocol_for
from esen_flows.schemas.card import ModelReference
from esen_flows.schemas.protocols import RelaxProtocol

# Relaxations to forces of this size and above do not feel the rounding of float32, which moves forces of up to 8
# eV/Angstrom by at most 6e-6 (benchmarks/results/float32_forces.json: the shipped networks, 8 and 216 atoms).
FLOAT32_FMAX_EV_PER_ANGSTROM = 0.01
# Time of a force call in float64 over that in float32, benchmarks/results/esen_speed_cpu.json: 64 and 216 atoms of
# the 3.2M model, 64 atoms of the 30M model.
CPU_RATIOS = (1.8, 2.1)


def precision_advice(spec: CampaignSpec, models: Sequence[ModelReference]) -> str:
    """What float64 costs, for relaxations that float32 is enough for.

    Parameters
    ----------
    spec
        Specification of the campaign.
    models
        Its force fields.

    Returns
    -------
    str
        One line; empty where the precision is float32 already, where it is needed, or where a force field has no other.

    Examples
    --------
    >>> from esen_flows.schemas.campaign import CampaignSpec
    >>> spec = {"name": "a", "property": "relax", "structures": {"file": "a.xyz"}, "models": "emt"}
    >>> precision_advice(CampaignSpec.model_validate(spec | {"settings": {"fmax_ev_per_angstrom": 0.001}}), [])
    ''
    """
    if spec.property != "relax" or spec.dtype != "float64" or any(model.dtype is not None for model in models):
        return ""
    protocol = protocol_for(spec, {})
    if not isinstance(protocol, RelaxProtocol) or protocol.fmax_ev_per_angstrom < FLOAT32_FMAX_EV_PER_ANGSTROM:
        return ""
    low, high = CPU_RATIOS
    return (
        f"precision: float64 takes {low} to {high} times as long as float32 on a CPU (measured with eSEN networks); "
        f"for forces of {protocol.fmax_ev_per_angstrom:g} eV/Angstrom float32 is enough: write dtype: float32 (the "
        "results have other keys)"
    )
