"""Labelling, training and evaluation: how they are asked for, and the documents that they give.

Protocols are part of result keys (see `requests`); outputs are what `ResultDocument.output` holds of such a result.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt

from esen_flows.schemas.documents import SCHEMA_VERSION, Array, Document
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.keys import sha256_of

# Stands for the model that a training starts from where that is none: architecture and seed are in its protocol.
RANDOM_WEIGHTS = sha256_of("random weights")
RANDOM_WEIGHTS_LABEL = "random weights"

ErrorTable = list[dict[str, float | str | None]]


class Split(Frozen):
    """What is held out of training: a share of every group, drawn with a seed; materials stay whole."""

    fraction: float = Field(default=0.08, gt=0.0, lt=1.0)
    seed: NonNegativeInt = 0


class LabellingProtocol(Frozen):
    """How structures are labelled by a force field."""

    average_inversion: bool = True  # labels of a force field that is not O(3)-equivariant have no mirror symmetry


class TrainingProtocol(Frozen):
    """One training stage: its settings and its data.

    Attributes
    ----------
    config
        `TrainingConfig.to_dict()`: flat, complete, defaults written out.
    datasets
        content keys with how often an epoch sees each; sAlex + 8 x MPtrj is ((s, 1), (m, 8)).
    split
        what is held out of each dataset for validation.
    """

    config: dict[str, Any]
    datasets: tuple[tuple[str, PositiveInt], ...] = Field(min_length=1)
    split: Split = Split()
    # Settings that are younger than the first release, with their defaults, which leave old keys as they were.
    config_added_later: ClassVar[Mapping[str, Any]] = {}

    def key_fields(self) -> dict[str, Any]:
        """The fields that enter the hash, without young settings at their defaults."""
        young, fields = self.config_added_later, super().key_fields()
        config = {name: value for name, value in fields["config"].items() if name not in young or value != young[name]}
        return {**fields, "config": config}


class EvaluationProtocol(Frozen):
    """Errors of a force field on a dataset, or on the part of it that a training with this split does not see."""

    held_out: Split | None = None


class LabellingOutput(Document):
    """A labelled dataset, which is stored by itself."""

    dataset_key: str
    dataset_name: str
    count: int
    atoms: int


class TrainingOutput(Document):
    """A trained force field.

    Attributes
    ----------
    model_key
        of what was trained.
    parent_training
        result key of the training that this one started from.
    training_structures, validation_structures
        how many there were of each; repeats count once.
    steps, training_seconds
        optimiser steps, and the time they took over all interruptions.
    history
        a row per validation, as in history.csv.
    errors
        on the held-out structures, a row per group and one for "all".
    record
        what the checkpoint says of its training: settings, data, versions.
    checkpoint
        (n,) uint8, the bytes of the .safetensors file.
    """

    model_key: str
    parent_training: str | None
    training_structures: int
    validation_structures: int
    steps: int
    training_seconds: float
    history: list[dict[str, float | str | None]]
    errors: ErrorTable
    record: dict[str, Any]
    checkpoint: Array


class EvaluationOutput(Document):
    """Errors of a force field on a dataset: a row per group and one for "all", units in the names."""

    structures: int
    errors: ErrorTable


class DatasetDocument(Document):
    """A labelled dataset: what is in it, and where its records are.

    Attributes
    ----------
    key
        sha256 of its content.
    names
        what people call it.
    count, atoms
        of structures, and of atoms in all of them.
    groups
        {group, count, materials} of each subset.
    elements
        symbols, sorted.
    statistics
        energies, forces and stresses in numbers, see `data.references.Statistics`.
    provenance
        labeller, recipe, licence, source, as far as known.
    folder
        absolute path of its shards, where it is too large for the database; None: `columns` hold the records.
    columns
        the records as arrays, see `store.datasets`.
    """

    schema_version: int = SCHEMA_VERSION
    key: str
    names: list[str]
    count: int
    atoms: int
    groups: list[dict[str, Any]]
    elements: list[str]
    statistics: dict[str, Any]
    provenance: dict[str, Any]
    folder: str | None
    columns: dict[str, Any] | None
    created_at: datetime


def errors_as_rows(errors: Mapping[str, Mapping[str, float]]) -> ErrorTable:
    """Errors by group as rows: a group's name may be anything, the name of a field may not."""
    return [{"group": group, **values} for group, values in sorted(errors.items())]


def overall(errors: ErrorTable) -> dict[str, float | str | None]:
    """The row of all groups together, without its name; empty if there is none."""
    rows = [row for row in errors if row["group"] == "all"]
    return {name: value for name, value in rows[0].items() if name != "group"} if rows else {}
