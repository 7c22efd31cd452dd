"""Labelling, training and evaluation: their protocols, and the documents that they return.

Protocols are part of result keys (see `requests`); outputs are the `output` of a `ResultDocument`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt

from esen_flows.schemas.document_base import SCHEMA_VERSION, Array, Document
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.keys import sha256_of

# Model key of a training that starts from no model; its protocol contains architecture and seed.
RANDOM_WEIGHTS = sha256_of("random weights")
RANDOM_WEIGHTS_LABEL = "random weights"

ErrorTable = list[dict[str, float | str | None]]


class Split(Frozen):
    """The part of a dataset that is held out of training; a material is held out whole or not at all.

    Attributes
    ----------
    fraction
        Fraction of every group that is held out.
    seed
        Seed of the draw.
    """

    fraction: float = Field(default=0.08, gt=0.0, lt=1.0)
    seed: NonNegativeInt = 0


class LabellingProtocol(Frozen):
    """Labelling of structures by a force field.

    Attributes
    ----------
    average_inversion
        Whether labels are averaged over inversion; on, because labels of a force field that is not O(3)-equivariant
        lack mirror symmetry.
    """

    average_inversion: bool = True


class TrainingProtocol(Frozen):
    """One training stage: its settings and its data.

    Attributes
    ----------
    config
        `TrainingConfig.to_dict()`: flat and complete, with defaults written out.
    datasets
        Keys of datasets, each with the number of its repetitions in an epoch; sAlex + 8 x MPtrj is ((s, 1), (m, 8)).
    split
        The part of each dataset that is held out for validation.
    config_added_later
        Settings that were added after the first release, with their defaults, which leave old keys as they are.
    """

    config: dict[str, Any]
    datasets: tuple[tuple[str, PositiveInt], ...] = Field(min_length=1)
    split: Split = Split()
    config_added_later: ClassVar[Mapping[str, Any]] = {}

    def key_fields(self) -> dict[str, Any]:
        """The fields that enter the hash, without later settings at their defaults.

        Returns
        -------
        dict[str, Any]
            Values for JSON, by field.
        """
        later, fields = self.config_added_later, super().key_fields()
        config = {name: value for name, value in fields["config"].items() if name not in later or value != later[name]}
        return {**fields, "config": config}


class EvaluationProtocol(Frozen):
    """Errors of a force field on a dataset.

    Attributes
    ----------
    held_out
        Split whose held-out part is evaluated; None, the default, evaluates the whole dataset.
    """

    held_out: Split | None = None


class LabellingOutput(Document):
    """A labelled dataset, which is stored as a DatasetDocument.

    Attributes
    ----------
    dataset_key
        Key of the dataset.
    dataset_name
        Its name.
    count
        Number of structures.
    atoms
        Number of atoms of all structures.
    """

    dataset_key: str
    dataset_name: str
    count: int
    atoms: int


class TrainingOutput(Document):
    """A trained force field.

    Attributes
    ----------
    model_key
        Key of the trained force field.
    parent_training
        Result key of the training from which this one started; None without a parent.
    training_structures
        Number of structures in the training set; repetitions count once.
    validation_structures
        Number of structures in the validation set.
    steps
        Number of optimiser steps.
    training_seconds
        Time of these steps in seconds, over all interruptions.
    history
        One row for each validation, as in history.csv.
    errors
        Errors on the held-out structures: one row for each group and one for "all", with units in the names.
    record
        Record of the training in the checkpoint: settings, data, versions.
    checkpoint
        (n,) uint8 bytes of the .safetensors file.
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
    """Errors of a force field on a dataset.

    Attributes
    ----------
    structures
        Number of structures.
    errors
        One row for each group and one for "all", with units in the names.
    """

    structures: int
    errors: ErrorTable


class DatasetDocument(Document):
    """A labelled dataset: its content in numbers, and its records or their place.

    Attributes
    ----------
    schema_version
        Version of the layout of this document.
    key
        sha256 of the content.
    names
        Names of the dataset for people.
    count
        Number of structures.
    atoms
        Number of atoms of all structures.
    groups
        `group`, `count` and `materials` of each subset.
    elements
        Sorted element symbols.
    statistics
        Statistics of energies, forces and stresses, see `data.references.Statistics`.
    provenance
        Labeller, recipe, licence and source, as far as they are known.
    folder
        Absolute path of the records, where they are too large for the database; None where `columns` holds them.
    columns
        The records as arrays, see `store.dataset_columns`.
    created_at
        Time of storage, UTC.
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
    """Errors by group as rows, because the name of a group may not be the name of a field in MongoDB.

    Parameters
    ----------
    errors
        Errors by group, then by name.

    Returns
    -------
    ErrorTable
        One row for each group, sorted by its name.
    """
    return [{"group": group, **values} for group, values in sorted(errors.items())]


def overall(errors: ErrorTable) -> dict[str, float | str | None]:
    """Errors over all groups.

    Parameters
    ----------
    errors
        One row for each group and one for "all".

    Returns
    -------
    dict[str, float | str | None]
        The row for "all" without its name; empty if there is none.
    """
    rows = [row for row in errors if row["group"] == "all"]
    return {name: value for name, value in rows[0].items() if name != "group"} if rows else {}
