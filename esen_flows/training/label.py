"""Labelling: structures and a force field in, an extended-XYZ dataset with its provenance out.

Every label is written as soon as it is known, so that a killed run goes on where it was; several processes may label
shards of one dataset, and `merge` puts them together.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from esen_flows.data.extxyz import write_labelled
from esen_flows.data.labelled import LabelledStructure
from esen_flows.errors import InputError
from esen_flows.forcefield.contract import Evaluation, ForceField
from esen_flows.forcefield.symmetrized import with_parity
from esen_flows.schemas.keys import atoms_key, sha256_of

_PACKAGES = ("esen_flows", "numpy", "ase", "torch", "sevenn", "e3nn")
Progress = Callable[[int, int], None]


def label(
    structures: Sequence[Atoms],
    force_field: ForceField,
    path: Path | str,
    *,
    average_inversion: bool = True,
    progress: Progress | None = None,
    resume: bool = True,
    shard: tuple[int, int] = (0, 1),
    batch_size: int = 1,
    recipe_hash: str = "",
    licence: str = "",
) -> Path:
    """Label structures with a force field and write them as extended XYZ with a provenance sidecar.

    Parameters
    ----------
    structures
        what to label; `info["group"]` is kept.
    force_field
        the labeller.
    path
        the dataset file. With more than one shard nothing is written there until `merge`.
    average_inversion
        average with the inverted cell, unless the force field is O(3)-equivariant already.
    progress
        called with (done, total) of this shard after every batch.
    resume
        keep the labels of an earlier, interrupted run of the same labelling; False starts afresh.
    shard
        (k, n): label structures k, k + n, k + 2n, ... only.
    batch_size
        structures given to the force field at once.
    recipe_hash, licence
        written into the provenance.

    Returns
    -------
    Path
        The dataset file; with several shards the file of this shard's labels, for `merge`.

    Raises
    ------
    InputError
        a bad shard, nothing to label, or earlier labels at `path` that belong to another labelling.
    """
    path = Path(path)
    number, shards = shard
    if not 0 <= number < shards:
        raise InputError(f"shard must be (k, n) with 0 <= k < n, got {shard}")
    if not structures or batch_size < 1:
        raise InputError(f"nothing to label: {len(structures)} structures in batches of {batch_size}")
    labeller = with_parity(force_field, "average" if average_inversion else "as_is")
    header = _header(structures, force_field, labeller, shard, recipe_hash, licence)
    labels_file = shard_path(path, number, shards)
    labels_file.parent.mkdir(parents=True, exist_ok=True)
    done = _open_labels(labels_file, header, resume)
    mine = list(range(number, len(structures), shards))
    todo = [index for index in mine if index not in done]
    with labels_file.open("a", encoding="utf-8") as stream:
        for start in range(0, len(todo), batch_size):
            batch = todo[start : start + batch_size]
            began = time.perf_counter()
            results = labeller.evaluate([structures[index] for index in batch])
            seconds = (time.perf_counter() - began) / len(batch)
            for index, result in zip(batch, results, strict=True):
                stream.write(json.dumps(_record(index, structures[index], result, seconds)) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
            if progress is not None:
                progress(len(mine) - len(todo) + start + len(batch), len(mine))
    return merge(path, 1) if shards == 1 else labels_file


def shard_path(path: Path | str, number: int, shards: int) -> Path:
    """Where the labels of one shard are kept until `merge`."""
    path = Path(path)
    return path.with_name(f"{path.name}.labels-{number}of{shards}.jsonl")


def merge(path: Path | str, shards: int) -> Path:
    """Put the labels of all shards together into the dataset `path`, and remove the shard files.

    Raises
    ------
    InputError
        a shard is missing, unfinished, or belongs to another labelling.
    """
    path = Path(path)
    header: dict[str, Any] = {}
    records: dict[int, dict[str, Any]] = {}
    for number in range(shards):
        file = shard_path(path, number, shards)
        if not file.is_file():
            raise InputError(f"shard {number} of {shards} of {path} is missing (no {file}); label it first")
        lines = list(_complete_lines(file))
        if not lines:
            raise InputError(f"{file} holds nothing; label shard {number} of {shards} again")
        own = {key: value for key, value in lines[0].items() if key != "shard"}
        if header and own["identity"] != header["identity"]:
            raise InputError(f"{file} belongs to another labelling than its siblings; delete it and label it again")
        header = own
        records.update({record["index"]: record for record in lines[1:]})
    missing = sorted(set(range(header["count"])) - set(records))
    if missing:
        raise InputError(
            f"{len(missing)} of {header['count']} structures of {path} are not labelled yet (first: {missing[0]}); "
            "run the labelling again, it goes on where it was"
        )
    ordered = [records[index] for index in range(header["count"])]
    write_labelled(path, [_labelled(record) for record in ordered], _provenance(header, ordered, shards))
    for number in range(shards):
        shard_path(path, number, shards).unlink(missing_ok=True)
    return path


def _header(
    structures: Sequence[Atoms],
    force_field: ForceField,
    labeller: ForceField,
    shard: tuple[int, int],
    recipe_hash: str,
    licence: str,
) -> dict[str, Any]:
    dataset = sha256_of([atoms_key(atoms) for atoms in structures])
    return {
        "identity": sha256_of({"structures": dataset, "labeller": labeller.key}),
        "count": len(structures),
        "shard": list(shard),
        "structures_hash": dataset,
        "recipe_hash": recipe_hash,
        "licence": licence,
        "labeller": {"label": labeller.label, "key": labeller.key, "inner_key": force_field.key},
        "averaged_with_inversion": labeller is not force_field,
        "versions": _versions(),
        "host": {"machine": platform.machine(), "python": platform.python_version()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _open_labels(file: Path, header: dict[str, Any], resume: bool) -> set[int]:
    """Indices that are labelled already; afterwards the file ends with a complete line."""
    lines = list(_complete_lines(file)) if resume and file.is_file() else []
    if lines and lines[0].get("identity") != header["identity"]:
        raise InputError(
            f"{file} holds labels of other structures or by another force field; "
            "choose another path, or start afresh with resume=False"
        )
    # Rewritten rather than truncated: a line cut short by a kill must not be continued.
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in (lines or [header])), encoding="utf-8")
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    return {line["index"] for line in lines[1:]}


def _complete_lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as stream:
        for line in stream:
            if not line.endswith("\n"):
                return  # the write that a kill interrupted
            try:
                yield json.loads(line)
            except ValueError as error:
                raise InputError(f"{file} is damaged: {error}; delete it and label again") from error


def _record(index: int, atoms: Atoms, result: Evaluation, seconds: float) -> dict[str, Any]:
    stress = result.stress.tolist() if np.isfinite(result.stress).all() else None
    return {
        "index": index,
        "group": str(atoms.info.get("group", "")),
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
        "energy": result.energy,
        "forces": result.forces.tolist(),
        "stress": stress,
        "seconds": seconds,
    }


def _labelled(record: dict[str, Any]) -> LabelledStructure:
    stress = np.full((3, 3), np.nan) if record["stress"] is None else np.array(record["stress"])
    return LabelledStructure(
        atoms=Atoms(record["numbers"], positions=record["positions"], cell=record["cell"], pbc=record["pbc"]),
        energy=float(record["energy"]),
        forces=np.array(record["forces"]),
        stress=stress,
        group=record["group"],
    )


def _provenance(header: dict[str, Any], records: list[dict[str, Any]], shards: int) -> dict[str, Any]:
    groups: dict[str, int] = {}
    for record in records:
        groups[record["group"]] = groups.get(record["group"], 0) + 1
    return {
        **header,
        "shards": shards,
        "groups": groups,
        "atoms": sum(len(record["numbers"]) for record in records),
        "seconds": round(sum(record["seconds"] for record in records), 3),
    }
