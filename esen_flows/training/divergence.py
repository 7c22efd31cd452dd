"""Which records of a batch make a loss that is not finite."""

from collections.abc import Callable, Sequence

import numpy as np

from esen_flows.data.dataset import Dataset
from esen_flows.errors import EsenFlowsError
from esen_flows.training.batches import Pick

NAMED = 5  # records in a message


class TrainingDivergedError(EsenFlowsError):
    """The loss, or its gradient, became NaN or infinite."""

    final = True


def blamed(dataset: Dataset, picks: Sequence[Pick], is_finite: Callable[[Pick], bool], scale_ev: float) -> str:
    """The records whose own loss is not finite, in words, and what to do about them.

    Parameters
    ----------
    dataset
        The training data.
    picks
        The batch.
    is_finite
        Whether loss and gradient of a structure alone are finite, with the weights before the step.
    scale_ev
        eV of one unit of the network.

    Returns
    -------
    str
        A sentence that names records by place, formula, material and group. If it is none of them, the sentence names
        those with the largest forces, and if it is all of them, the weights.
    """
    faulty = [pick for pick in picks if not is_finite(pick)]
    if len(faulty) == len(picks) > 1:
        return (
            f"so is that of each of its {len(picks)} structures: the weights, or the scale of {scale_ev:.3g} eV, are "
            "the reason, and not a record; lower learning_rate or clip_norm, or look for huge forces"
        )
    if faulty:
        more = f" and {len(faulty) - NAMED} more" if len(faulty) > NAMED else ""
        names = "; ".join(record_name(dataset, pick.index) for pick in faulty[:NAMED])
        return f"it is that of {names}{more}; look at their labels, and leave them out or label them again"
    largest = sorted(picks, key=lambda pick: -float(np.abs(dataset[pick.index].forces).max()))[:3]
    names = "; ".join(record_name(dataset, pick.index) for pick in largest)
    return (
        f"that of each of its {len(picks)} structures alone is finite; the largest forces have {names}; look at their "
        "labels, or lower learning_rate or clip_norm"
    )


def record_name(dataset: Dataset, index: int) -> str:
    """Place, formula, names and size of the labels of a record.

    Parameters
    ----------
    dataset
        The dataset.
    index
        Index of the record.

    Returns
    -------
    str
        One line.
    """
    item = dataset[index]
    names = [item.atoms.get_chemical_formula(), *(f"{name!r}" for name in (item.material, item.group) if name)]
    force = float(np.abs(item.forces).max())
    return f"{dataset.place(index)} ({', '.join(names)}: {item.energy:.6g} eV, forces to {force:.3g} eV/Angstrom)"
