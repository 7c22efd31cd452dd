"""Which forces a protocol uses: derivatives of the energy, those of direct heads, or both in turn."""

import re
from typing import Annotated

from pydantic import AfterValidator

MOST_STEPS = 1000
_MTS = re.compile(r"mts\(([0-9]{1,4})\)")


def slow_interval(forces: str) -> int | None:
    """Steps from one conservative force call to the next in dynamics with multiple time steps.

    Parameters
    ----------
    forces
        Field of a protocol.

    Returns
    -------
    int | None
        M of "mts(M)"; None for other values.

    Examples
    --------
    >>> slow_interval("mts(8)"), slow_interval("direct")
    (8, None)
    """
    found = _MTS.fullmatch(forces)
    return int(found[1]) if found else None


def _known(value: str) -> str:
    interval = slow_interval(value)
    if value not in ("conservative", "direct") and (interval is None or not 2 <= interval <= MOST_STEPS):
        raise ValueError(f"forces: conservative, direct, or mts(M) with M from 2 to {MOST_STEPS} such as mts(8)")
    return value


def refuse_direct(forces: str, accepted: bool) -> None:
    """Refuse direct forces where the property needs the gradient of an energy, unless they were accepted.

    Parameters
    ----------
    forces
        Field of a protocol.
    accepted
        Its field `accept_direct`.

    Raises
    ------
    ValueError
        The fields do not fit together.
    """
    if forces == "direct" and not accepted:
        raise ValueError(
            "forces=direct are not the gradient of an energy, which this property needs; leave forces out, or set "
            "accept_direct=true to compute with them all the same"
        )
    if accepted and forces != "direct":
        raise ValueError(f"accept_direct=true is for forces=direct, and forces is {forces}; leave accept_direct out")


MDForces = Annotated[str, AfterValidator(_known)]
