"""Static errors: energies, forces and stresses of frames against DFT, by subset, in the units of the eSEN paper."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from esen_flows.data.label_errors import mean_errors

Floats = NDArray[np.float64]
HEADLINE = "force_mae_mev_per_angstrom"
SHOWN = ("energy_mae_mev_per_atom", HEADLINE, "stress_mae_mev_per_angstrom3")
ALIGNED = "aligned_energy_mae_mev_per_atom"


def static_errors(
    sums: Floats, subsets: Sequence[str], energy_errors_ev_per_atom: Floats, fractions: Floats
) -> dict[str, float | None]:
    """Mean absolute errors of all frames and of each subset.

    Parameters
    ----------
    sums
        (n, len(SUMS)) summands of each frame (`data.label_errors.error_sums`).
    subsets
        (n,) name of the subset of each frame.
    energy_errors_ev_per_atom
        (n,) computed energy less that of DFT in eV/atom.
    fractions
        (n, elements) share of each element in the frame's atoms.

    Returns
    -------
    dict
        Number of frames; errors of energies (meV/atom), forces (meV/Angstrom, over components) and stresses
        (meV/Angstrom^3, over nine components; None without labels); the error of energies beside the best constant
        shift of each element (`aligned_energies`); and, if there is more than one subset, the same of each, as
        "SUBSET: NAME".
    """
    everything = np.ones(len(sums), dtype=bool)
    parts = [("", everything)]
    names = sorted(set(subsets))
    if len(names) > 1:
        parts += [(f"{name}: ", np.array([subset == name for subset in subsets])) for name in names]
    found: dict[str, float | None] = {}
    for prefix, chosen in parts:
        errors = mean_errors(sums[chosen].sum(axis=0))
        found[f"{prefix}frames"] = int(errors["frames"])
        for name in SHOWN:
            found[prefix + name] = errors[name] if np.isfinite(errors[name]) else None
        # Of its own frames: a fit to all of them would follow the subset with the largest errors.
        aligned = aligned_energies(energy_errors_ev_per_atom[chosen], fractions[chosen])
        found[prefix + ALIGNED] = None if aligned is None else 1000 * float(np.abs(aligned).mean())
    return found


def aligned_energies(energy_errors_ev_per_atom: Floats, fractions: Floats) -> Floats | None:
    """Errors of energies beside the best constant shift of each element.

    Force fields whose energies have another zero, such as those with corrections of MP2020, differ from plain DFT by
    about such shifts.

    Parameters
    ----------
    energy_errors_ev_per_atom
        (n,) computed energy less that of DFT in eV/atom.
    fractions
        (n, elements) share of each element in the frame's atoms.

    Returns
    -------
    ndarray or None
        (n,) errors less the shifts of a least-squares fit; None for fewer than two frames per element, of which a fit
        would leave too little.
    """
    seen = fractions[:, fractions.any(axis=0)]
    if len(seen) < 2 * seen.shape[1]:
        return None
    shifts = np.linalg.lstsq(seen, energy_errors_ev_per_atom, rcond=None)[0]
    return np.asarray(energy_errors_ev_per_atom - seen @ shifts)
