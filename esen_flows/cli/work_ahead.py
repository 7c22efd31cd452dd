"""What a request will compute, told before it begins; work of unusual size needs `--yes`."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from esen_flows.cli.property_request import PropertyRequest
from esen_flows.errors import InputError
from esen_flows.schemas.documents import Kind
from esen_flows.schemas.protocols import DisplacementProtocol

if TYPE_CHECKING:
    from esen_flows.store.results import Store

# The largest supercells of published protocols have a few hundred atoms.
MOST_ATOMS = 5_000
MOST_HOURS = 48.0
_ORDINALS = {2: "second", 3: "third"}


def describe_work(request: PropertyRequest, missing: Collection[Kind], store: "Store", *, yes: bool) -> str:
    """Supercells that will be evaluated, with an estimate of the time.

    Parameters
    ----------
    request
        A property of a structure.
    missing
        Kinds of the steps that are not stored.
    store
        Store with earlier results, whose timings give the estimate.
    yes
        Whether work beyond `MOST_ATOMS` in a supercell or `MOST_HOURS` is wanted.

    Returns
    -------
    str
        Text for the user; empty if no supercell is to be evaluated.

    Raises
    ------
    InputError
        The work is beyond a bound, and `yes` is not given.
    """
    step = next((each for each in request.steps if each.kind == "forces"), None)
    if step is None or "forces" not in missing:
        return ""
    from esen_flows.campaigns.cost import CostModel, displaced_supercells, member_cost, seconds_per_unit

    assert isinstance(step.protocol, DisplacementProtocol)
    supercells = displaced_supercells(request.atoms, step.protocol)
    if not supercells:
        return ""  # no symmetry is found, which fails with its own message
    counts = [max(round(each.count), 1) for each in supercells]
    text = ", ".join(
        f"about {n} supercell{'s' * (n > 1)} of {each.atoms:.0f} atoms ({_ORDINALS[each.order]} order)"
        for n, each in zip(counts, supercells, strict=True)
    )
    model = CostModel.of(request.model)
    cost = member_cost(request.atoms, request.protocol, model)
    device = request.device.partition(":")[0]
    rate = seconds_per_unit(store, request.model.key, device, model.cutoff_angstrom, request.numeric.dtype)
    hours = None if rate is None else rate * cost / 3600.0
    words = f"to compute: {text}; {_duration(hours)}"
    if not yes and (max(each.atoms for each in supercells) > MOST_ATOMS or (hours or 0.0) > MOST_HOURS):
        raise InputError(
            f"{words}. That is more than {MOST_ATOMS} atoms in a supercell or {MOST_HOURS:.0f} hours: choose smaller "
            "supercells (--set displacement.fc2_min_length_angstrom=..., displacement.fc2_supercell=...; "
            "see esen-flows fields), or confirm with --yes"
        )
    return words


def _duration(hours: float | None) -> str:
    if hours is None:
        return "no earlier result of this force field on this device tells how long that takes"
    seconds = 3600.0 * hours
    if seconds < 90:
        words = f"{max(seconds, 1):.0f} s"
    else:
        words = f"{seconds / 60:.0f} minutes" if hours < 2 else f"{hours:.0f} hours"
    return f"about {words}, judged by earlier results"
