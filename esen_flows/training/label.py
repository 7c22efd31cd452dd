"""Labelling: structures and a force field in, an extended-XYZ dataset with its provenance out.

Every label is written as soon as it is known, so that a run that was killed goes on where it was. Several processes may
label shards of one dataset, and `merge` puts them together.
"""

import itertools
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from esen_flows.data.extxyz import read_provenance, sidecar_path, write_labelled
from esen_flows.data.labelled import LabelledStructure
from esen_flows.data.prototypes import Crystal
from esen_flows.data.size_classes import by_size_class
from esen_flows.errors import InputError
from esen_flows.files import only_process_in, sha256_of_file, written_whole
from esen_flows.forcefield.contract import Evaluation, ForceField
from esen_flows.forcefield.symmetrized import with_parity
from esen_flows.schemas.keys import atoms_key, sha256_of

_PACKAGES = ("esen_flows", "numpy", "ase", "torch", "sevenn", "e3nn")
_REMEDY = "choose another path, or remove it"
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
    crystals: Sequence[Crystal] = (),
) -> Path:
    """Label structures with a force field, and write them as extended XYZ with a provenance sidecar.

    Structures of similar size are labelled one after the other (`data.size_classes`); their order in the file stays.

    Parameters
    ----------
    structures
        Structures to label; `info["group"]` is kept.
    force_field
        The labeller.
    path
        The dataset file. With several shards `merge` writes it.
    average_inversion
        Whether to average labels with those of the inverted cell; not needed for an O(3)-equivariant force field.
    progress
        Called with (done, total) of this shard after every batch.
    resume
        Whether to keep the labels of an earlier, interrupted run of the same labelling.
    shard
        (k, n): label structures k, k + n, k + 2n, ... only.
    batch_size
        Structures given to the force field at once.
    recipe_hash, licence, crystals
        Written into the provenance; of the crystals, the lattice constants are.

    Returns
    -------
    Path
        The dataset file; with several shards, until it is there, the file of this shard's labels, for `merge`.

    Raises
    ------
    InputError
        The shard is impossible, there is nothing to label, or labels or another file at `path` belong to another
        labelling.
    FolderInUseError
        Another process labels the same shard.
    """
    path = Path(path)
    number, shards = shard
    if not 0 <= number < shards:
        raise InputError(f"shard must be (k, n) with 0 <= k < n, got {shard}")
    if not structures or batch_size < 1:
        raise InputError(f"nothing to label: {len(structures)} structures in batches of {batch_size}")
    labeller = with_parity(force_field, "average" if average_inversion else "as_is")
    header = _header(structures, force_field, labeller, shard, recipe_hash, licence)
    if crystals:
        header["crystals"] = [asdict(crystal) for crystal in crystals]
    file = shard_path(path, number, shards)
    path.parent.mkdir(parents=True, exist_ok=True)
    with only_process_in(path.parent, f".{file.name}.lock"):
        if resume and _is_labelled(path, header["identity"]):
            return path
        if resume and path.exists():
            raise InputError(f"{path} exists and is not of this labelling; {_REMEDY}")
        _label_rest(structures, labeller, file, _open_labels(file, header, resume), shard, batch_size, progress)
        return merge(path, 1) if shards == 1 else file


def refuse_foreign_labels(path: Path | str, force_field: ForceField, recipe_hash: str) -> None:
    """Refuse labels of something else before the relaxations and dynamics that make the structures to label.

    Parameters
    ----------
    path
        The dataset file, which need not exist.
    force_field, recipe_hash
        As they are given to `label`.

    Raises
    ------
    InputError
        There is a file that is not a labelling, finished or interrupted, of this recipe by this force field.
    """
    path = Path(path)
    file = path if path.exists() else shard_path(path, 0, 1)
    if not file.exists():
        return
    header: dict[str, Any] | None = {}
    if file is not path:
        header = next(_complete_lines(file), None)
    elif sidecar_path(path).is_file():
        header = read_provenance(path)
    if header is None:  # a kill has cut the first line short
        return
    labeller = header.get("labeller")
    if not isinstance(labeller, dict) or labeller.get("inner_key") != force_field.key:
        raise InputError(f"{file} exists and is not a labelling by {force_field.label}; {_REMEDY}")
    if header.get("recipe_hash") != recipe_hash:
        raise InputError(f"{file} holds labels of another version of the recipe; {_REMEDY}")


def _is_labelled(path: Path, identity: str) -> bool:
    """Whether an earlier run has labelled the same structures by the same force field to the end."""
    if not (path.is_file() and sidecar_path(path).is_file()):
        return False
    provenance = read_provenance(path)
    return provenance.get("identity") == identity and provenance.get("sha256") == sha256_of_file(path)


def _label_rest(
    structures: Sequence[Atoms],
    labeller: ForceField,
    file: Path,
    done: set[int],
    shard: tuple[int, int],
    batch_size: int,
    progress: Progress | None,
) -> None:
    """Append the labels of the shard's structures that are not labelled yet."""
    mine = range(shard[0], len(structures), shard[1])
    cutoff = labeller.declaration.cutoff_angstrom
    todo = [mine[place] for place in by_size_class([structures[index] for index in mine], cutoff)]
    todo = [index for index in todo if index not in done]
    with file.open("a", encoding="utf-8") as stream:
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


def shard_path(path: Path | str, number: int, shards: int) -> Path:
    """File of the labels of one shard, until `merge` removes it.

    Parameters
    ----------
    path
        The dataset file.
    number, shards
        Which of how many shards.

    Returns
    -------
    Path
        A file beside the dataset file.
    """
    path = Path(path)
    return path.with_name(f"{path.name}.labels-{number}of{shards}.jsonl")


def merge(path: Path | str, shards: int) -> Path:
    """Put the labels of all shards together into a dataset file, and remove the shard files.

    Parameters
    ----------
    path
        The dataset file.
    shards
        Number of shards.

    Returns
    -------
    Path
        The dataset file.

    Raises
    ------
    InputError
        A shard is missing, unfinished, or belongs to another labelling.
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
            raise InputError(f"{file} is empty; label shard {number} of {shards} again")
        own = {key: value for key, value in lines[0].items() if key != "shard"}
        if not (isinstance(own.get("identity"), str) and _is_count(own.get("count"))):
            raise InputError(f"{file} does not begin with a header of labels; delete it and label again")
        if header and own["identity"] != header["identity"]:
            raise InputError(f"{file} belongs to another labelling than its siblings; delete it and label it again")
        header = own
        records.update({record["index"]: record for record in lines[1:]})
    missing = header["count"] - sum(index < header["count"] for index in records)
    if missing:
        first = next(index for index in itertools.count() if index not in records)
        raise InputError(
            f"{missing} of {header['count']} structures of {path} are not labelled yet (first: {first}); "
            "run the labelling again, it goes on where it was"
        )
    ordered = [records[index] for index in range(header["count"])]
    try:
        labelled, provenance = [_labelled(record) for record in ordered], _provenance(header, ordered, shards)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"the labels of {path} are damaged: {error!r:.200}; delete its shards, label again") from error
    write_labelled(path, labelled, provenance, without_stress=bool(header.get("without_stress")))
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
    """First line of a shard's file: what is labelled, by which force field, in which versions."""
    versions = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
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
        "without_stress": "stress" not in labeller.declaration.outputs,
        "versions": versions,
        "host": {"machine": platform.machine(), "python": platform.python_version()},
    }


def _open_labels(file: Path, header: dict[str, Any], resume: bool) -> set[int]:
    """Indices that are labelled already; afterwards the file exists and ends with a complete line."""
    lines = list(_complete_lines(file)) if resume and file.is_file() else []
    if lines and lines[0].get("identity") != header["identity"]:
        raise InputError(f"{file} holds labels of other structures or by another force field; {_REMEDY}")
    # Rewritten: new labels must not continue a line that a kill has cut short.
    with written_whole(file) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in (lines or [header])), encoding="utf-8")
    return {line["index"] for line in lines[1:]}


def _complete_lines(file: Path) -> Iterator[dict[str, Any]]:
    """Header and labels of a shard's file, without a last line that a kill has cut short."""
    with file.open("rb") as stream:
        for number, line in enumerate(stream):
            if not line.endswith(b"\n"):
                return
            try:
                content = json.loads(line)
            except (ValueError, RecursionError) as error:  # also what is not UTF-8
                raise InputError(f"{file} is damaged: {error}; delete it and label again") from error
            if not isinstance(content, dict) or not (number == 0 or _is_count(content.get("index"))):
                raise InputError(f"{file} is damaged: line {number + 1} is not a label; delete it and label again")
            yield content


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9


def _record(index: int, atoms: Atoms, result: Evaluation, seconds: float) -> dict[str, Any]:
    """A structure and its label as a line of a shard's file."""
    return {
        "index": index,
        "group": str(atoms.info.get("group", "")),
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
        "energy": result.energy,
        "forces": result.forces.tolist(),
        "stress": result.stress.tolist() if np.isfinite(result.stress).all() else None,
        "seconds": seconds,
    }


def _labelled(record: dict[str, Any]) -> LabelledStructure:
    """The structure of a line of a shard's file."""
    return LabelledStructure(
        atoms=Atoms(record["numbers"], positions=record["positions"], cell=record["cell"], pbc=record["pbc"]),
        energy=float(record["energy"]),
        forces=np.array(record["forces"]),
        stress=np.full((3, 3), np.nan) if record["stress"] is None else np.array(record["stress"]),
        group=record["group"],
    )


def _provenance(header: dict[str, Any], records: list[dict[str, Any]], shards: int) -> dict[str, Any]:
    """Content of the dataset's sidecar."""
    return {
        **header,
        "shards": shards,
        "groups": dict(Counter(record["group"] for record in records)),
        "atoms": sum(len(record["numbers"]) for record in records),
        "seconds": round(sum(record["seconds"] for record in records), 3),
    }
