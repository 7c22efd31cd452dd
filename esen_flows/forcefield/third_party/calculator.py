"""Force fields of other packages in environments of their own, behind the contract.

A card of family `calculator` says how the environment is made (`forcefield.environments`) and how the ASE calculator is
built there. One child process per recipe and device evaluates the structures.
"""

import os
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from esen_flows.errors import EvaluationError, InsufficientMemoryError, ModelError
from esen_flows.files import sha256_of_file
from esen_flows.forcefield.contract import Declaration, Evaluation, ForceField
from esen_flows.forcefield.environments import environment_python, fetched_checkpoint
from esen_flows.forcefield.third_party import calculator_child
from esen_flows.forcefield.third_party.any_ase import check_structures, not_finite
from esen_flows.forcefield.third_party.calculator_child import Arrays
from esen_flows.forcefield.third_party.calculator_process import CalculatorProcess
from esen_flows.schemas.declarations import Dtype
from esen_flows.schemas.keys import canonical_json
from esen_flows.structures.inputs import AnyStructures, as_structures

if TYPE_CHECKING:
    from esen_flows.schemas.model_card import ModelCard

# Children of this process, by recipe and device: force fields that are loaded twice share one.
_children: "weakref.WeakValueDictionary[str, CalculatorProcess]" = weakref.WeakValueDictionary()


class CalculatorForceField(ForceField):
    """Force field of an ASE calculator in a child process, which gets each batch whole.

    Parameters
    ----------
    process
        The child.
    key, label, declaration
        As in `ForceField`.
    """

    def __init__(self, process: CalculatorProcess, *, key: str, label: str, declaration: Declaration) -> None:
        self.process = process
        self.key = key
        self.label = label
        self.declaration = declaration

    def evaluate(self, structures: AnyStructures) -> list[Evaluation]:
        """Energies, forces and stresses of structures, in their order.

        Parameters
        ----------
        structures
            Structures of any size and periodicity.

        Returns
        -------
        list[Evaluation]
            Results; the stress is NaN where the structure or the calculator has none.

        Raises
        ------
        StructureError, UnknownElementError
            A structure cannot be evaluated; nothing was computed.
        EvaluationError
            A result is NaN or infinite, the calculator raised an error, or (`CalculatorDiedError`) its process crashed,
            hung or gave an answer of the wrong form.
        InsufficientMemoryError
            The calculator ran out of memory.
        """
        structures = as_structures(structures)
        check_structures(structures, self.declaration.elements, self.label)
        if not structures:
            return []
        header, arrays = self.process.ask(_packed(structures))
        if header["kind"] == "error":
            raise self._failure(header, structures)
        self._check_shapes(arrays, len(structures), sum(map(len, structures)))
        self.force_evaluations += len(structures)
        results, begin = [], 0
        for index, atoms in enumerate(structures):
            own = slice(begin, begin + len(atoms))
            begin += len(atoms)
            energy, forces = float(arrays["energy"][index]), arrays["forces"][own]
            if not (np.isfinite(energy) and np.isfinite(forces).all()):
                raise not_finite(self.label, index, atoms)
            energies = arrays["energies"][own] if "energies" in arrays else None
            results.append(Evaluation(energy, forces, arrays["stress"][index], energies))
        return results

    def _failure(self, header: Mapping[str, Any], structures: Sequence[Atoms]) -> Exception:
        kind = InsufficientMemoryError if header.get("memory") else EvaluationError
        index = header.get("index")
        known = isinstance(index, int) and 0 <= index < len(structures)
        name = f"structure {index} ({structures[index].get_chemical_formula()})" if known else "a batch"  # type: ignore[index]
        return kind(f"{self.label!r} failed for {name}: {header.get('message')}")

    def _check_shapes(self, arrays: Arrays, systems: int, atoms: int) -> None:
        expected = {"energy": (systems,), "forces": (atoms, 3), "stress": (systems, 3, 3), "energies": (atoms,)}
        found = {name: array.shape for name, array in arrays.items() if array.dtype == np.float64}
        if found not in (expected, {name: expected[name] for name in ("energy", "forces", "stress")}):
            raise self.process.reject(f"gave arrays of shapes {found} for {systems} structures of {atoms} atoms")


def _packed(structures: Sequence[Atoms]) -> Arrays:
    def info(name: str) -> np.ndarray:
        return np.array([float(atoms.info.get(name, np.nan)) for atoms in structures])

    return {
        "counts": np.array([len(atoms) for atoms in structures], dtype=np.int64),
        "numbers": np.concatenate([atoms.numbers for atoms in structures]).astype(np.int64),
        "positions": np.concatenate([atoms.positions for atoms in structures]),
        "cells": np.array([atoms.cell.array for atoms in structures]),
        "pbc": np.array([atoms.pbc for atoms in structures]).astype(np.uint8),
        "charges": info("charge"),
        "spins": info("spin"),
    }


def calculator(
    card: "ModelCard", folder: Path, *, device: str = "cpu", dtype: Dtype = "float64"
) -> CalculatorForceField:
    """Force field of a calculator card, whose process has started and has built the calculator.

    Parameters
    ----------
    card
        Card of family `calculator`.
    folder
        Folder of the card, to which its paths are relative.
    device
        "cpu", "cuda" or "cuda:1"; the child sees only this GPU. Not part of the key.
    dtype
        Precision of the arithmetic, where the card leaves a choice.

    Returns
    -------
    CalculatorForceField
        Force field that declares what the card says.

    Raises
    ------
    ModelError
        The environment or the checkpoint is missing or is another one than the card says, or the calculator cannot be
        built.
    """
    recipe, package = card.in_own_environment
    precision: Dtype = card.dtype or dtype
    arguments, sha256 = dict(card.arguments), None
    if recipe.checkpoint_argument is not None:
        path, sha256 = _checkpoint(card, folder)
        arguments[recipe.checkpoint_argument] = str(path)
    if recipe.device_argument is not None:
        arguments[recipe.device_argument] = device.partition(":")[0]
    if recipe.dtype_argument is not None:
        arguments[recipe.dtype_argument] = precision
    key = recipe.model_key(package, card.arguments, sha256, builder=card.builder, folder=folder)
    message = {
        "key": key,  # another child where the code of `paths` has changed
        "build": recipe.build,
        "package": package,
        "expected_version": recipe.version,
        "outside": recipe.build_outside_package,
        "arguments": arguments,
        "paths": [str((folder / path).resolve()) for path in recipe.paths],
    }
    process = _child(environment_python(card), message, device, card.name, recipe.time_limit_seconds)
    process.description()  # of a child that has built the calculator, or says why it cannot
    elements = None if card.elements is None else frozenset(atomic_numbers[symbol] for symbol in card.elements)
    declaration = Declaration(
        conservative=card.conservative,
        equivariance=card.equivariance,
        differentiable=False,
        elements=elements,
        dtype=precision,
        cutoff_angstrom=recipe.cutoff_angstrom,
        smooth=recipe.smooth,
    )
    return CalculatorForceField(process, key=key, label=card.name, declaration=declaration)


def _checkpoint(card: "ModelCard", folder: Path) -> tuple[Path, str]:
    """Path and sha256 of the checkpoint, whose bytes are those that the card names."""
    recipe, _ = card.in_own_environment
    if recipe.checkpoint_file is None:
        path = fetched_checkpoint(card)
        return path, sha256_of_file(path)
    path = (folder / recipe.checkpoint_file).expanduser()
    if not path.is_file():
        raise ModelError(f"no file {path}, which the card of {card.name!r} names as its checkpoint")
    found = sha256_of_file(path)
    if found != recipe.checkpoint_sha256:
        raise ModelError(f"{path} has sha256 {found}, its card says {recipe.checkpoint_sha256}; correct one of them")
    return path, found


def _child(python: Path, message: Mapping[str, Any], device: str, label: str, time_limit: float) -> CalculatorProcess:
    identity = canonical_json([str(python), message, device, time_limit])
    process = _children.get(identity)
    if process is None:
        # -I: neither PYTHONPATH nor the folder of this file, whose modules have names of packages, is imported from.
        command = [str(python), "-I", str(Path(calculator_child.__file__).resolve())]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment["CUDA_VISIBLE_DEVICES"] = _visible(device)
        process = CalculatorProcess(
            command, message, environment=environment, label=label, time_limit_seconds=time_limit
        )
        _children[identity] = process
    return process


def _visible(device: str) -> str:
    """The GPUs that the child may see: none, or the one of the device among those that this process sees."""
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return ""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    index = int(number or 0)
    return str(index) if visible is None else visible.split(",")[index].strip()
