"""Labelled structures as extended XYZ, with a JSON sidecar that says where the labels came from."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from esen_flows.data.labelled import LabelledStructure, check_labels
from esen_flows.errors import InputError

# ASE cuts floats in columns to eight decimals: 1e-8 eV/Angstrom, below the noise of any label.
_COLUMNS = ["symbols", "positions"]


def sidecar_path(path: Path | str) -> Path:
    """Where the provenance of a dataset file is: `train.xyz` -> `train.xyz.json`."""
    return Path(f"{path}.json")


def write_atomically(path: Path, text: str) -> None:
    """Write `text` so that a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_labelled(
    path: Path | str, structures: Iterable[LabelledStructure], provenance: Mapping[str, Any] | None = None
) -> Path:
    """Write structures with energy, forces and stress in ASE's conventions, and `provenance` as JSON beside them.

    The sidecar also gets the sha256 of the file.

    Positions, forces and cells are kept to about 1e-8 Angstrom or eV/Angstrom; energies and stresses in full.

    Raises
    ------
    InputError
        nothing to write, or a label that is NaN or has the wrong shape.
    """
    path = Path(path)
    frames = [_to_frame(path, index, item) for index, item in enumerate(structures)]
    if not frames:
        raise InputError(f"no structures to write to {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        ase.io.write(temporary, frames, format="extxyz", columns=[*_COLUMNS, "forces"])
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if provenance is not None:
        content = {**provenance, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        write_atomically(sidecar_path(path), json.dumps(content, indent=1, sort_keys=True) + "\n")
    return path


def _to_frame(path: Path, index: int, item: LabelledStructure) -> Atoms:
    check_labels(f"structure {index} for {path}", item)
    frame = item.atoms.copy()
    frame.calc = None
    for name in ("group", "material"):
        if getattr(item, name):
            frame.info[name] = getattr(item, name)
    results: dict[str, Any] = {"energy": float(item.energy), "forces": item.forces}
    if np.isfinite(item.stress).all():
        results["stress"] = item.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    frame.calc = SinglePointCalculator(frame, **results)
    return frame


def read_labelled(path: Path | str, *, require_stress: bool = True) -> list[LabelledStructure]:
    """Structures with energy, forces and stress from an extended XYZ file.

    Parameters
    ----------
    path
        file written by `write_labelled`, or any extended XYZ in ASE's conventions.
    require_stress
        whether a periodic cell without a stress label is an error; otherwise its stress is NaN.

    Raises
    ------
    InputError
        no such file, not extended XYZ, a missing label, or one that is NaN.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no dataset at {path}; label structures first, or check the path")
    try:
        frames = ase.io.read(path, index=":", format="extxyz")
    except (ase.io.extxyz.XYZError, ValueError, KeyError, IndexError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable extended XYZ file: {error}") from error
    if not frames:
        raise InputError(f"{path} holds no structures; label it again")
    return [_from_frame(f"structure {i} of {path}", frame, require_stress) for i, frame in enumerate(frames)]


def _from_frame(where: str, frame: Atoms, require_stress: bool) -> LabelledStructure:
    results = {} if frame.calc is None else dict(frame.calc.results)
    for name in ("energy", "forces"):
        if name not in results:
            raise InputError(f"{where} has no {name} label (found: {sorted(results) or 'none'}); label it first")
    stress = np.full((3, 3), np.nan)
    if "stress" in results:
        voigt = np.asarray(results["stress"], dtype=np.float64).reshape(-1)
        stress = voigt[[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3) if voigt.size == 6 else voigt.reshape(3, 3)
    elif require_stress and frame.cell.rank == 3:
        raise InputError(f"{where} has no stress label; label it first, or read with require_stress=False")
    atoms = frame.copy()
    atoms.calc = None
    group, material = (str(atoms.info.pop(name, "")) for name in ("group", "material"))
    item = LabelledStructure(
        atoms=atoms,
        energy=float(results["energy"]),
        forces=np.array(results["forces"], dtype=np.float64),
        stress=stress,
        group=group,
        material=material,
    )
    if "stress" in results or frame.cell.rank < 3:
        check_labels(where, item)
    else:
        check_labels(where, LabelledStructure(atoms, item.energy, item.forces, np.zeros((3, 3)), group))
    return item


def read_provenance(path: Path | str) -> dict[str, Any]:
    """The JSON sidecar of a dataset file.

    Raises
    ------
    InputError
        there is none, or it is not JSON.
    """
    sidecar = sidecar_path(path)
    try:
        return dict(json.loads(sidecar.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise InputError(f"no provenance at {sidecar}; a labelled dataset comes with its sidecar") from error
    except ValueError as error:
        raise InputError(f"{sidecar} is not JSON: {error}") from error
