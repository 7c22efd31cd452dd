"""The result of a benchmark for one force field."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class JudgedModel:
    """Metrics of one force field in one benchmark.

    Attributes
    ----------
    model
        Label of the force field.
    n_materials
        Number of materials of the reference.
    n_done
        Number of them that are finished or failed.
    done
        Metrics over the materials that are done, under the names of `metrics.published.COLUMNS`; empty as long as there
        is none.
    intervals
        Lower and upper end of the 95 % bootstrap interval of some of them.
    with_missing_as_failed
        Metrics over all materials as the leaderboard counts: those that are pending or absent are failures.
    headline
        Name of the metric that one looks at first.
    materials
        Values and errors of each material of the reference, all with the same names.
    """

    model: str
    n_materials: int
    n_done: int
    done: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float]]
    with_missing_as_failed: Mapping[str, float | None]
    headline: str
    materials: Sequence[Mapping[str, Any]]
