"""How neighbours fade out at the cutoff, and cutoffs that adapt to the density around an atom."""

from math import pi

import torch
from torch import Tensor

ADAPTIVE_WIDTH_ANGSTROM = 1.0  # of the shell in which neighbours are counted in part
SMALLEST_SHARE = 1 / 16  # of the cutoff radius, which an adaptive cutoff never falls below
_BISECTIONS = 16  # the bracket is then 1e-5 of the cutoff, from where three Newton steps reach rounding
# Beyond these limits the switch is 1 or 0 within 1e-27, and its tangent would overflow.
_INNER, _OUTER = 0.01, 0.99


def log_switch(distance: Tensor, cutoff: Tensor | float, width: float) -> Tensor:
    """Logarithm of the switch 0.5 (1 + tanh(cot(pi s))), s = (distance - cutoff + width) / width.

    The switch falls from 1 to 0 with all its derivatives continuous. Its logarithm stays finite, so that it can be
    added to the logits of an attention.

    Parameters
    ----------
    distance
        (edges,) lengths in Angstrom.
    cutoff
        Distance in Angstrom at which the switch vanishes, one or (edges,).
    width
        Width of the shell in which it falls, in Angstrom.

    Returns
    -------
    Tensor
        (edges,), at least -64.
    """
    share = ((distance - cutoff + width) / width).clamp(_INNER, _OUTER)
    return torch.nn.functional.logsigmoid(2 / torch.tan(pi * share))


def adaptive_cutoffs(distance: Tensor, target: Tensor, n_atoms: int, cutoff: float, neighbors: float) -> Tensor:
    """Cutoff r of each atom that solves sum_j switch(d_j; r) + n (r / cutoff)^3 = n.

    In a dense surrounding an atom keeps somewhat fewer than n neighbours; with few neighbours r approaches `cutoff`.

    Parameters
    ----------
    distance
        (edges,) lengths in Angstrom, at most `cutoff`.
    target
        (edges,) atom whose neighbour each edge is.
    n_atoms
        Number of atoms.
    cutoff
        Largest cutoff in Angstrom.
    neighbors
        The number n.

    Returns
    -------
    Tensor
        (atoms,) in Angstrom, from cutoff / 16 to cutoff, twice differentiable with respect to the distances.
    """

    def excess(radius: Tensor) -> Tensor:
        """Left side minus right side of the equation."""
        share = (distance - radius[target]) / ADAPTIVE_WIDTH_ANGSTROM + 1
        switch = torch.sigmoid(2 / torch.tan(pi * share.clamp(_INNER, _OUTER)))
        return (neighbors * (radius / cutoff).pow(3) - neighbors).index_add(0, target, switch)

    def slope(radius: Tensor) -> Tensor:
        """Derivative of the left side with respect to the radius."""
        share = (distance - radius[target]) / ADAPTIVE_WIDTH_ANGSTROM + 1
        angle = pi * share.clamp(_INNER, _OUTER)
        switch = torch.sigmoid(2 / torch.tan(angle))
        steep = 2 * pi * switch * (1 - switch) / torch.sin(angle).square() / ADAPTIVE_WIDTH_ANGSTROM
        steep = torch.where((share > _INNER) & (share < _OUTER), steep, 0.0)
        return (3 * neighbors * (radius / cutoff).pow(3) / radius).index_add(0, target, steep)

    with torch.no_grad():
        low = distance.new_full((n_atoms,), cutoff * SMALLEST_SHARE)
        high = torch.full_like(low, cutoff)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            above = excess(middle) > 0
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        radius = 0.5 * (low + high)
        radius = radius - excess(radius) / slope(radius)
    # From a constant starting point, one Newton step carries the first derivative of the root, two also the second.
    for _ in range(2):
        radius = radius - excess(radius) / slope(radius)
    return radius.clamp(cutoff * SMALLEST_SHARE, cutoff)
