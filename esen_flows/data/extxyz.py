"""Labelled structures as extended XYZ, with the provenance of the labels in a JSON sidecar."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from esen_flows.data.labelled import LabelledStructure, can_have_stress
from esen_flows.errors import InputError
from esen_flows.files import sha256_of_file, written_whole

# ASE cuts floats in columns to eight decimals: 1e-8 eV/Angstrom, below the noise of any label.
_COLUMNS = ["symbols", "positions", "forces"]


def sidecar_path(path: Path | str) -> Path:
    """Path of the provenance of a file of labels: `train.xyz` -> `train.xyz.json`.

    Parameters
    ----------
    path
        The file of labels.

    Returns
    -------
    Path
        The sidecar, whether it exists or not.
    """
    return Path(f"{path}.json")


def write_labelled(
    path: Path | str,
    structures: Iterable[LabelledStructure],
    provenance: Mapping[str, Any] | None = None,
    *,
    without_stress: bool = False,
) -> Path:
    """Write structures with energy, forces and stress in ASE's conventions.

    Positions, forces and cells are kept to about 1e-8 Angstrom or eV/Angstrom; energies and stresses in full. A process
    that is interrupted leaves the former file.

    Parameters
    ----------
    path
        File to write; its folder is made if it is missing.
    structures
        Structures with their labels.
    provenance
        Content of the sidecar, to which the sha256 of the file is added; None writes no sidecar.
    without_stress
        Whether crystals may lack a stress, because the labeller gives none.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        There is nothing to write, or a label is NaN or has the wrong shape.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from esen_flows.data.importing import read_dataset
    >>> hydrogen = LabelledStructure(molecule("H2"), -6.7, np.zeros((2, 3)), np.full((3, 3), np.nan))
    >>> read_dataset(write_labelled("hydrogen.xyz", [hydrogen]))[0].energy
    -6.7
    """
    path = Path(path)
    frames = [_to_frame(f"structure {index} for {path}", item, without_stress) for index, item in enumerate(structures)]
    if not frames:
        raise InputError(f"no structures to write to {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        ase.io.write(temporary, frames, format="extxyz", columns=_COLUMNS)
        if provenance is not None:  # first, so that the file never lacks it
            content = {**provenance, "sha256": sha256_of_file(temporary)}
            with written_whole(sidecar_path(path), durable=True) as sidecar:
                sidecar.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path


def _to_frame(where: str, item: LabelledStructure, without_stress: bool) -> Atoms:
    _check_labels(where, item, without_stress)
    frame = item.atoms.copy()
    for name in ("group", "material"):
        if getattr(item, name):
            frame.info[name] = getattr(item, name)
    results: dict[str, Any] = {"energy": float(item.energy), "forces": item.forces}
    if np.isfinite(item.stress).all():
        results["stress"] = item.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    frame.calc = SinglePointCalculator(frame, **results)
    return frame


def _check_labels(where: str, item: LabelledStructure, without_stress: bool) -> None:
    """Refuse labels that cannot be trained on."""
    if item.forces.shape != (len(item.atoms), 3):
        raise InputError(f"{where}: forces have shape {item.forces.shape}, expected ({len(item.atoms)}, 3)")
    if item.stress.shape != (3, 3):
        raise InputError(f"{where}: the stress has shape {item.stress.shape}, expected (3, 3)")
    for name, value in (("energy", item.energy), ("forces", item.forces)):
        if not np.isfinite(value).all():
            raise InputError(f"{where}: the {name} label is NaN or infinite; drop the structure or label it again")
    finite = np.isfinite(item.stress)
    needed = can_have_stress(item.atoms) and not without_stress
    if not finite.all() and (needed or finite.any()):
        raise InputError(
            f"{where}: the stress label is NaN or infinite, but the structure is a crystal; label it again"
        )


def read_provenance(path: Path | str) -> dict[str, Any]:
    """The JSON sidecar of a file of labels.

    Parameters
    ----------
    path
        The file of labels.

    Returns
    -------
    dict[str, Any]
        Provenance given to `write_labelled`, with the sha256 of the file.

    Raises
    ------
    InputError
        There is no sidecar, or it is not JSON.
    """
    sidecar = sidecar_path(path)
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"no provenance at {sidecar}; a labelled dataset comes with its sidecar") from error
    except ValueError as error:
        raise InputError(f"{sidecar} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{sidecar} is not the provenance of a dataset: it holds {type(content).__name__}, no object")
    return content
