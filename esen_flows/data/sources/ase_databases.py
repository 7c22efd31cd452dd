"""ASE databases: SQLite or JSON through ase.db, and LMDB files as OMat24, sAlex and OMol ship them.

An LMDB file of this kind is a single file (no subdirectory). Keys are the rows' numbers as text, beside `nextid`,
`deleted_ids` and `metadata`; values are JSON compressed by zlib, with the fields of an ASE row.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase.io.jsonio import object_hook

from esen_flows.data.labelled import LabelledStructure
from esen_flows.data.screening import BadRecord
from esen_flows.data.sources.ase_files import hinted
from esen_flows.data.sources.conventions import Convention, Labels, labelled
from esen_flows.data.sources.options import SourceOptions
from esen_flows.errors import InputError

_FIELDS = ("numbers", "positions", "cell", "pbc", "energy", "free_energy", "forces", "stress")
_HEAD = (b"nextid", b"deleted_ids", b"metadata")


def read_ase_db(path: Path, options: SourceOptions) -> Iterator[LabelledStructure | BadRecord]:
    """Rows of a database that ASE itself opens.

    Raises
    ------
    InputError
        it is none.
    """
    import ase.db

    convention = options.convention("ase-db")
    try:
        for row in ase.db.connect(path).select():
            fields = {name: row.get(name) for name in _FIELDS}
            further = {**row.data, **row.key_value_pairs}
            yield _record(f"row {row.id} of {path.name}", fields, further, options, convention)
    except Exception as error:  # sqlite, JSON and ASE's own
        raise InputError(f"{path} is not a readable ASE database: {type(error).__name__}: {error}") from error


def read_ase_lmdb(path: Path, options: SourceOptions) -> Iterator[LabelledStructure | BadRecord]:
    """Rows of an LMDB file, by number.

    Raises
    ------
    InputError
        it is none, or the library `lmdb` is missing.
    """
    try:
        import lmdb
    except ImportError as error:
        raise InputError(f"{path.name} needs the library lmdb; pip install 'esen_flows[datasets]'") from error
    convention = options.convention("ase-lmdb")
    try:
        environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False, readahead=False, meminit=False)
    except lmdb.Error as error:
        raise InputError(f"{path} is not a readable LMDB file: {error}") from error
    with environment, environment.begin() as transaction:
        for key in _row_keys(transaction, path):
            where = f"row {key.decode()} of {path.name}"
            value = transaction.get(key)
            if value is None:
                yield BadRecord(where, "unreadable", "the row is missing")
                continue
            try:
                row = _decoded(value)
            except (zlib.error, ValueError, TypeError, KeyError) as error:
                yield BadRecord(where, "unreadable", str(error))
                continue
            further = {**(row.get("data") or {}), **(row.get("key_value_pairs") or {})}
            yield _record(where, row, further, options, convention)


def _decoded(value: bytes) -> Any:
    return json.loads(zlib.decompress(value), object_hook=object_hook)


def _row_keys(transaction: Any, path: Path) -> Iterator[bytes]:
    """Keys of the rows that were not deleted, in the order of their numbers."""
    following = transaction.get(b"nextid")
    if following is None:
        raise InputError(f"{path} is an LMDB file, but no ASE database: it has no entry 'nextid'")
    deleted = transaction.get(b"deleted_ids")
    gone = set(_decoded(deleted)) if deleted is not None else set()
    return (str(number).encode() for number in range(1, int(_decoded(following))) if number not in gone)


def _record(
    where: str, fields: Mapping[str, Any], further: dict[str, Any], options: SourceOptions, convention: Convention
) -> LabelledStructure | BadRecord:
    found = {**further, **{name: value for name, value in fields.items() if value is not None}}
    group, material = options.names(further)
    pbc = fields.get("pbc")
    labels = Labels(
        numbers=fields.get("numbers"),
        positions=fields.get("positions"),
        cell=fields.get("cell"),
        pbc=False if pbc is None else np.asarray(pbc, dtype=bool),
        energy=found.get(options.energy_key) if options.energy_key else fields.get("energy"),
        forces=found.get(options.forces_key) if options.forces_key else fields.get("forces"),
        stress=found.get(options.stress_key) if options.stress_key else fields.get("stress"),
        group=group,
        material=material,
        charge=further.get("charge", 0),
        spin=further.get("spin", 0),
    )
    return hinted(labelled(where, labels, convention), found)
