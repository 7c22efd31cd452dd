"""The index of a dataset folder, as far as it is shown to people."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from esen_flows.errors import InputError


class _Part(BaseModel):
    """A part of an index; what later releases add to it is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class IndexStatistics(_Part):
    """Size of the labels, as `data.references.Statistics` has it.

    Attributes
    ----------
    references_ev
        Energy per atom of each element in eV, by atomic number.
    energy_rms_ev_per_atom, force_rms_ev_per_angstrom, force_max_ev_per_angstrom, stress_rms_ev_per_angstrom3
        Sizes of the labels.
    stress_records
        Number of records with a stress.
    """

    references_ev: dict[int, float] = Field(max_length=118)
    energy_rms_ev_per_atom: float
    force_rms_ev_per_angstrom: float
    force_max_ev_per_angstrom: float
    stress_rms_ev_per_angstrom3: float | None
    stress_records: NonNegativeInt


class IndexSlope(_Part):
    """Outcome of the check by strain for one kind of labels, as `data.stress_check.Slope` has it.

    Attributes
    ----------
    quantity
        Kind of the labels.
    slope, standard_error
        Slope and its standard error; None without pairs.
    pairs
        Number of pairs.
    likely
        Another way to read the labels that explains the energies far better.
    """

    quantity: str
    slope: float | None
    standard_error: float | None
    pairs: NonNegativeInt
    likely: str = ""


class IndexFile(_Part):
    """A file of a source.

    Attributes
    ----------
    bytes
        Its size.
    """

    bytes: NonNegativeInt


class IndexSource(_Part):
    """A source of the records.

    Attributes
    ----------
    name, format
        Name and format.
    files
        Its files.
    """

    name: str
    format: str
    files: tuple[IndexFile, ...]


class IndexProvenance(_Part):
    """Where the records come from.

    Attributes
    ----------
    sources
        The sources that were imported; none for records made in Python.
    """

    sources: tuple[IndexSource, ...] = ()


class IndexBadRecord(_Part):
    """A record that was left out, as `data.screening.BadRecord` has it.

    Attributes
    ----------
    where, reason, found
        Place, reason and offending value.
    """

    where: str
    reason: str
    found: str = ""


class IndexRejected(_Part):
    """The records that were left out.

    Attributes
    ----------
    records
        Their number.
    counts
        Numbers by reason.
    listed
        The first of them.
    """

    records: NonNegativeInt
    counts: dict[str, int]
    listed: tuple[IndexBadRecord, ...]


class DatasetIndex(_Part):
    """The index of a dataset folder.

    Attributes
    ----------
    key
        Key of the dataset.
    records, atoms, materials
        Numbers of records, atoms and materials.
    group_names, group_records
        Names of the groups, and numbers of their records.
    statistics
        Size of the labels.
    check_by_strain
        Outcomes of the check by strain.
    rejected
        Records that were left out.
    remarks
        Number of records by what was noticed when they were read.
    provenance
        Where the records come from.
    """

    key: str
    records: NonNegativeInt
    atoms: NonNegativeInt
    materials: NonNegativeInt
    group_names: tuple[str, ...]
    group_records: tuple[NonNegativeInt, ...]
    statistics: IndexStatistics
    check_by_strain: tuple[IndexSlope, ...] = ()
    rejected: IndexRejected
    remarks: dict[str, int] = Field(default_factory=dict)
    provenance: IndexProvenance


def checked_index(index: dict[str, Any], path: str) -> DatasetIndex:
    """The fields of an index.

    Parameters
    ----------
    index
        Content of the file, from `data.folders.read_index`.
    path
        Its name for the error message.

    Returns
    -------
    DatasetIndex
        The fields.

    Raises
    ------
    InputError
        A field is missing or of another type; the message names the first.
    """
    try:
        return DatasetIndex.model_validate(index)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "index"
        raise InputError(f"the index of {path} is damaged: {where:.99}: {first['msg']:.99}; import it again") from None
