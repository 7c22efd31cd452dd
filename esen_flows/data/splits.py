"""Training and validation sets: drawn at random, the same ones for the same seed, and written down."""

from collections.abc import Sequence

import numpy as np

from esen_flows.errors import InputError


def split_by_group(groups: Sequence[str], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of a training and a validation set, drawn at random by structure within every group.

    Parameters
    ----------
    groups : (n,) group name of every structure.
    fraction : share of every group that goes to validation, rounded to the nearest integer.
    seed : of the numpy Generator that draws.

    Returns
    -------
    training, validation : sorted indices; together they are 0..n-1.

    Raises
    ------
    InputError : a fraction outside 0..1.
    """
    if not 0.0 <= fraction < 1.0:
        raise InputError(f"the validation fraction must be in [0, 1), got {fraction}")
    generator = np.random.default_rng(seed)
    validation: list[int] = []
    for name in sorted(set(groups)):
        members = [index for index, group in enumerate(groups) if group == name]
        order = generator.permutation(len(members))[: round(fraction * len(members))]
        validation += [members[index] for index in order]
    held_out = set(validation)
    return [index for index in range(len(groups)) if index not in held_out], sorted(validation)
