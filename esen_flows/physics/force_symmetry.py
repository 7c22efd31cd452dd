"""A force field with the symmetry that a protocol asks for."""

import numpy as np

from esen_flows.forcefield.rotations import IDENTITY, Rotations, lebedev, polyhedral, random_rotations
from esen_flows.schemas.force_symmetry import ForceSymmetry


def rotations_of(symmetry: ForceSymmetry | None, *, inversion: bool = False) -> Rotations:
    """The rotations that a protocol names.

    Parameters
    ----------
    symmetry
        Field of the protocol; None: the identity alone.
    inversion
        Whether each is also taken with the inversion, even if the field does not say so.

    Returns
    -------
    Rotations
        Rotations in the frame of the field.
    """
    chosen = IDENTITY
    if symmetry is not None and symmetry.average == "lebedev":
        chosen = lebedev(symmetry.directions or 0, symmetry.angles or 0)  # both are there
    elif symmetry is not None and symmetry.average == "random":
        chosen = random_rotations(symmetry.rotations or 0, np.random.default_rng(symmetry.seed))
    elif symmetry is not None and symmetry.average != "none":
        chosen = polyhedral(symmetry.average)
    return chosen.with_inversion() if inversion or (symmetry is not None and symmetry.inversion) else chosen
