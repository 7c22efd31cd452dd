"""Which precision a campaign needs, and what a higher one costs.

The default precision never depends on the device, because it is part of every key.
"""

from collections.abc import Mapping, Sequence

from esen_flows.campaigns.cost import CostModel, seconds_per_unit
from esen_flows.schemas.campaign import CampaignSpec, protocol_for
from esen_flows.schemas.card import ModelReference
from esen_flows.schemas.declarations import Dtype
from esen_flows.schemas.protocols import RelaxProtocol
from esen_flows.store.results import Store
from esen_flows.store.timings import DEVICE_KINDS, DeviceKind

# Relaxations to forces of this size and above do not feel the rounding of float32, which moves forces of up to 8
# eV/Angstrom by at most 6e-6 (benchmarks/results/float32_forces.json: the shipped networks, 8 and 216 atoms).
FLOAT32_FMAX_EV_PER_ANGSTROM = 0.01
# Time of a force call in float64 over that in float32, benchmarks/results/esen_speed_cpu.json: 64 and 216 atoms of
# the 3.2M model, 64 atoms of the 30M model.
CPU_RATIOS = (1.8, 2.1)


def precision_advice(
    spec: CampaignSpec, models: Sequence[ModelReference], device: DeviceKind = "cpu", hours: Mapping[str, float] = {}
) -> str:
    """What float64 costs, for relaxations that float32 is enough for.

    Parameters
    ----------
    spec
        Specification of the campaign.
    models
        Its force fields.
    device
        Kind of device on which it is to run.
    hours
        Predicted hours by "device in precision", where they are known.

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
    slow, fast = (hours.get(f"{device} in {dtype}") for dtype in ("float64", "float32"))
    if slow and fast:
        cost = f"float64 takes {slow / fast:.2g} times as long as float32 on {device} by stored timings"
    elif device == "cpu":
        low, high = CPU_RATIOS
        cost = f"float64 takes {low} to {high} times as long as float32 on a CPU (measured with eSEN networks)"
    else:
        cost = f"float64 takes longer than float32, and no stored timings say how much on {device}"
    return (
        f"precision: {cost}; for forces of {protocol.fmax_ev_per_angstrom:g} eV/Angstrom float32 is enough: write "
        "dtype: float32 (the results have other keys)"
    )


def pending_hours(
    store: Store, models: Sequence[tuple[ModelReference, CostModel]], cost: Mapping[str, float], dtype: Dtype,
    device: DeviceKind | None,
) -> dict[str, float]:  # fmt: skip
    """Predicted hours of pending members on one device.

    Parameters
    ----------
    store
        Store with the timings of earlier results.
    models
        Force fields of the campaign.
    cost
        Edge evaluations of pending members by label of their force field.
    dtype
        Precision of the campaign.
    device
        Kind of device, of which both precisions are predicted; None: all kinds, in the precision of the campaign.

    Returns
    -------
    dict[str, float]
        Hours by "device in precision", where all force fields were measured.
    """
    precisions: tuple[Dtype, ...] = (dtype,) if device is None else ("float64", "float32")
    hours = {}
    for kind in DEVICE_KINDS if device is None else (device,):
        for one in precisions:
            rates = {
                model.label: seconds_per_unit(store, model.key, kind, cost_model.cutoff_angstrom, one)
                for model, cost_model in models
            }
            seconds = [rate * cost[label] for label, rate in rates.items() if rate is not None]
            if len(seconds) == len(rates):
                hours[f"{kind} in {one}"] = sum(seconds) / 3600.0
    return hours


def hours_in_words(hours: Mapping[str, float], dtype: str, device: DeviceKind | None) -> str:
    """What is known of the hours of a campaign.

    Parameters
    ----------
    hours
        Result of `pending_hours`.
    dtype
        Precision of the campaign.
    device
        Kind of device that was asked for; None: all kinds.

    Returns
    -------
    str
        Half a sentence.

    Examples
    --------
    >>> hours_in_words({"cuda in float64": 12.0, "cuda in float32": 5.0}, "float64", "cuda")
    '12 cuda hours in float64, 5 in float32'
    >>> hours_in_words({"cuda in float32": 5.0}, "float32", None)
    '5 cuda hours'
    """
    own = {kind: hours.get(f"{kind} in {dtype}") for kind in DEVICE_KINDS if device in (None, kind)}
    known = " or ".join(f"{value:.2g} {kind} hours" for kind, value in own.items() if value is not None)
    if device is None:
        return known or "not measured yet"
    if not known:
        return (
            f"hours on {device} are not known, because no relaxation and no campaign in {dtype} with each of its force "
            f"fields is stored from there; relax one structure with each on such a device"
        )
    other = "float32" if dtype == "float64" else "float64"
    value = hours.get(f"{device} in {other}")
    return f"{known} in {dtype}, " + (f"{other} not measured yet" if value is None else f"{value:.2g} in {other}")
