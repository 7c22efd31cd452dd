"""How strongly a test error goes with the quality of physical properties, over many force fields."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from esen_flows.errors import InputError
from esen_flows.metrics.published import OLD_RMSD_SCALE, LeaderboardRow
from esen_flows.metrics.statistics import Correlation, correlation

# Quality of properties by metric, with names for people. Those that no model has are left out.
QUANTITIES = {
    "κ_SRME": "κ SRME",
    "unique_F1": "F1",
    "rmsd_1e-2": "RMSD",
    "mdr_entropy_mae_j_per_k_mol": "vibrational entropy",
    "mdr_max_frequency_mae_k": "highest frequency",
}
_FEWEST = 3  # models of a correlation


def passing(
    rows: Sequence[LeaderboardRow], verdicts: Mapping[str, bool] = MappingProxyType({})
) -> list[LeaderboardRow]:
    """Models whose forces are derivatives of their energies.

    Parameters
    ----------
    rows
        Models.
    verdicts
        Verdicts of audits by key of the model. A model without one passes if its card declares such forces.

    Returns
    -------
    list of LeaderboardRow
        The models that pass.
    """
    return [row for row in rows if verdicts.get(row.key, row.conservative)]


def error_correlations(rows: Sequence[LeaderboardRow], error: str) -> dict[str, Correlation]:
    """Correlations of a test error with each quality that at least three models have.

    Parameters
    ----------
    rows
        Models.
    error
        Name of the test error among their values.

    Returns
    -------
    dict
        Correlation by metric, in the order of `QUANTITIES`.

    Raises
    ------
    InputError
        There is none.
    """
    found: dict[str, Correlation] = {}
    for name in QUANTITIES:
        pairs = error_pairs(rows, error, name)
        values = np.array([(row.values[error], row.values[name]) for row in pairs]).reshape(-1, 2)
        if len(pairs) >= _FEWEST and np.ptp(values, axis=0).all():
            found[name] = correlation(values[:, 0], values[:, 1])
    if not found:
        raise InputError(
            f"fewer than {_FEWEST} of {len(rows)} models have {error} and a quality it could be compared with; these "
            f"are {', '.join(QUANTITIES)}"
        )
    return found


def error_pairs(rows: Sequence[LeaderboardRow], error: str, quantity: str) -> list[LeaderboardRow]:
    """Models that have a test error and a quality on the leaderboard's scale.

    Parameters
    ----------
    rows
        Models.
    error, quantity
        Names among their values.

    Returns
    -------
    list of LeaderboardRow
        The models; those whose RMSD has the older scale have no comparable RMSD.
    """
    old = OLD_RMSD_SCALE if quantity.startswith("rmsd") else frozenset()
    return [row for row in rows if error in row.values and quantity in row.values and row.key not in old]
