"""Curves of homonuclear diatomic molecules by a force field."""

from collections.abc import Callable

import numpy as np
from ase import Atoms

from esen_flows.errors import EvaluationError, InsufficientMemoryError, UnknownElementError
from esen_flows.forcefield.contract import Evaluation, ForceField
from esen_flows.schemas.diatomics import DiatomicsOutput, DiatomicsProtocol

Show = Callable[[int, int], None]


def diatomic_curves(
    force_field: ForceField, protocol: DiatomicsProtocol, on_element: Show = lambda done, total: None
) -> DiatomicsOutput:
    """Energies and forces of pairs of equal atoms in a box; the pairs of an element share their force calls.

    Parameters
    ----------
    force_field
        Force field.
    protocol
        Elements, separations and box.
    on_element
        Called after each element with the number of elements done, and of all.

    Returns
    -------
    DiatomicsOutput
        Curves. A point with an energy or force that is not finite is NaN. An element that the force field does not
        know, or on which it gives nothing finite, has no curve but a reason.

    Raises
    ------
    EvaluationError
        No element has a curve.

    Examples
    --------
    >>> from esen_flows.forcefield.load import load_force_field
    >>> curves = diatomic_curves(load_force_field("emt"), DiatomicsProtocol(elements=("Cu", "W")))
    >>> curves.elements, curves.energies_ev.shape, list(curves.excluded)
    (['Cu'], (1, 119), ['W'])
    """
    found: dict[str, list[Evaluation | None]] = {}
    excluded: dict[str, str] = {}
    for done, element in enumerate(protocol.symbols, start=1):
        try:
            curve = _curve(force_field, element, protocol)
        except UnknownElementError as error:
            excluded[element] = str(error)
        else:
            if any(curve):
                found[element] = curve
            else:
                excluded[element] = "no energy and forces are finite"
        on_element(done, len(protocol.symbols))
    if not found:
        raise EvaluationError(f"{force_field.label!r} has no curve of any element; {next(iter(excluded.values()))}")
    missing = Evaluation(np.nan, np.full((2, 3), np.nan), np.full((3, 3), np.nan))
    points = [[point or missing for point in curve] for curve in found.values()]
    return DiatomicsOutput(
        distances_angstrom=protocol.separations_angstrom,
        elements=list(found),
        energies_ev=np.array([[point.energy for point in curve] for curve in points]),
        forces_ev_per_angstrom=np.array([[point.forces for point in curve] for curve in points]),
        excluded=excluded,
    )


def _curve(force_field: ForceField, element: str, protocol: DiatomicsProtocol) -> list[Evaluation | None]:
    """Results at all separations; None where they are not finite."""
    centre, box = protocol.box_angstrom / 2, np.eye(3) * protocol.box_angstrom
    pairs = [
        Atoms([element] * 2, [[centre] * 3, [centre + distance, centre, centre]], cell=box, pbc=True)
        for distance in protocol.separations_angstrom
    ]
    return _evaluated(force_field, pairs)


def _evaluated(force_field: ForceField, pairs: list[Atoms]) -> list[Evaluation | None]:
    """Results of pairs in one call; where that fails, of halves, so that one point costs no other."""
    try:
        return list(force_field.evaluate(pairs))
    except (EvaluationError, InsufficientMemoryError) as error:
        if len(pairs) == 1:
            if isinstance(error, EvaluationError):
                return [None]
            raise
        half = len(pairs) // 2
        return _evaluated(force_field, pairs[:half]) + _evaluated(force_field, pairs[half:])
