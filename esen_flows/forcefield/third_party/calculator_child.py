"""Evaluates structures by an ASE calculator in an environment of its own, for `calculator_process`.

This file runs there as a program. It needs Python 3.10, numpy and ase, and imports nothing of this package. Parent and
child exchange messages over pipes: a fixed head (magic, version, length of the header), a JSON header, and the arrays
that the header lists, as raw little-endian bytes. Every size is bounded before anything is allocated.
"""

import contextlib
import importlib
import importlib.metadata
import json
import os
import queue
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

MAGIC, VERSION = b"ESFC", 1
HEAD = struct.Struct("<4sII")  # magic, version, bytes of the header
MOST_HEADER_BYTES = 1 << 20
MOST_ARRAY_BYTES = 1 << 31
MOST_ARRAYS = 16
# Types of arrays that are exchanged; bool travels as one byte.
TYPES: dict[str, np.dtype[Any]] = {"f8": np.dtype("<f8"), "i8": np.dtype("<i8"), "u1": np.dtype("u1")}
# While a batch takes longer than this, the parent hears of each interval that the child is alive and advances.
SECONDS_BETWEEN_SIGNS = 1.0

Arrays = dict[str, np.ndarray]
Read = Callable[[int], bytes]


class ProtocolError(Exception):
    """Bytes are not a message of this protocol and version."""


def pack(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> bytes:
    """Message as bytes.

    Parameters
    ----------
    header
        Plain values; `kind` says what the message is.
    arrays
        Arrays of float64, int64 or uint8 of any shape.

    Returns
    -------
    bytes
        The message.
    """
    listed, raw = [], []
    for name, array in (arrays or {}).items():
        code = f"{array.dtype.kind}{array.dtype.itemsize}"
        listed.append([name, code, list(array.shape)])
        raw.append(np.ascontiguousarray(array, dtype=TYPES[code]).tobytes())
    text = json.dumps({**header, "arrays": listed}).encode()
    return b"".join([HEAD.pack(MAGIC, VERSION, len(text)), text, *raw])


def unpack(read: Read) -> tuple[dict[str, Any], Arrays]:
    """Next message of a stream.

    Parameters
    ----------
    read
        Function that gives exactly this number of bytes, or raises.

    Returns
    -------
    dict[str, Any]
        The header.
    dict[str, np.ndarray]
        The arrays, writable.

    Raises
    ------
    ProtocolError
        The bytes are not a message, are of another version, or announce more than the bounds.
    """
    magic, version, length = HEAD.unpack(read(HEAD.size))
    if magic != MAGIC or version != VERSION or length > MOST_HEADER_BYTES:
        raise ProtocolError(f"a message begins with {magic!r}, version {version}, header of {length} bytes")
    try:
        header = json.loads(read(length))
        layout = [(str(name), TYPES[code], _shape(shape)) for name, code, shape in header.pop("arrays")]
        header["kind"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"the header of a message cannot be read: {error!r}") from None
    sizes = [dtype.itemsize * int(np.prod(shape, dtype=object)) for _, dtype, shape in layout]
    if len(sizes) > MOST_ARRAYS or sum(sizes) > MOST_ARRAY_BYTES:
        raise ProtocolError(f"a message announces {len(sizes)} arrays of {sum(sizes)} bytes")
    arrays = {
        name: np.frombuffer(bytearray(read(size)), dtype=dtype).reshape(shape)
        for (name, dtype, shape), size in zip(layout, sizes, strict=True)
    }
    return header, arrays


def _shape(values: list[int]) -> tuple[int, ...]:
    if not all(type(value) is int and value >= 0 for value in values):
        raise ValueError(f"shape {values}")
    return tuple(values)


def evaluate_one(atoms: Atoms, calculator: Any) -> tuple[float, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Energy, forces, stress and energies of atoms by an ASE calculator, in ASE's units and sign.

    Parameters
    ----------
    atoms
        One structure, whose calculator is replaced; constraints have no effect on the results.
    calculator
        ASE calculator.

    Returns
    -------
    float
        Energy in eV.
    np.ndarray
        (n, 3) forces in eV/Angstrom.
    np.ndarray | None
        (3, 3) stress in eV/Angstrom^3; None where the structure or the calculator has none.
    np.ndarray | None
        (n,) energies of the atoms in eV; None where the calculator has none.
    """
    atoms.calc = calculator
    energy = float(atoms.get_potential_energy())
    forces = np.array(atoms.get_forces(apply_constraint=False), dtype=np.float64)
    stress, energies = None, None
    if atoms.pbc.all() and atoms.cell.volume > 0.0 and "stress" in calculator.implemented_properties:
        # Several ASE calculators have a stress only for some periodicities.
        with contextlib.suppress(PropertyNotImplementedError):
            stress = np.array(atoms.get_stress(voigt=False, apply_constraint=False), dtype=np.float64)
    if "energies" in calculator.implemented_properties:
        with contextlib.suppress(PropertyNotImplementedError):  # some give them only on request
            found = np.array(calculator.get_property("energies", atoms), dtype=np.float64)
            energies = found if found.shape == (len(atoms),) else None
    return energy, forces, stress, energies


def build(recipe: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The calculator of a recipe, and a description of it.

    Parameters
    ----------
    recipe
        `build` (module:callable), `arguments`, `paths` (folders to import from), `package`, its `expected_version`, and
        `outside`: whether `build` may be of another package.

    Returns
    -------
    Any
        ASE calculator.
    dict[str, Any]
        `version` of the package (None: it says none), `python`, and `versions` of all installed distributions.

    Raises
    ------
    ValueError
        The package has another version, or `build` is not of it; the code that `build` names was not called.
    """
    sys.path[:0] = recipe["paths"]
    package = recipe["package"]
    module_name, _, attributes = recipe["build"].partition(":")
    top = module_name.partition(".")[0]
    if not recipe["outside"] and _normal(top) != _normal(package):
        owners = importlib.metadata.packages_distributions().get(top, [])
        if _normal(package) not in map(_normal, owners):
            raise ValueError(
                f"build: {recipe['build']} is not of {package}, but of {' or '.join(owners) or 'no distribution'}; "
                "correct the card, or write build_outside_package: true in it"
            )
    try:
        version: str | None = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        version = getattr(importlib.import_module(package), "__version__", None)
    if version != recipe["expected_version"] and not (version is None and recipe["paths"]):
        raise ValueError(
            f"the environment has {package} {version}, the card says {recipe['expected_version']}; install the card's, "
            "or correct the card"
        )
    target: Any = importlib.import_module(module_name)
    for attribute in attributes.split("."):
        target = getattr(target, attribute)
    found = importlib.metadata.distributions()
    versions = {each.metadata["Name"]: each.version for each in found if each.metadata["Name"]}
    description = {"version": version, "python": sys.version.split()[0], "versions": versions}
    return target(**recipe["arguments"]), description


def _normal(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")


def evaluate(arrays: Arrays, calculator: Any, sign: Callable[[], None]) -> tuple[dict[str, Any], Arrays]:
    """Answer to a batch, whole or not at all.

    Parameters
    ----------
    arrays
        counts (s,), numbers (n,), positions (n, 3), cells (s, 3, 3), pbc (s, 3), charges (s,), spins (s,).
    calculator
        ASE calculator.
    sign
        Called after each structure, so that the parent hears that the child advances.

    Returns
    -------
    dict[str, Any]
        Header: kind `results`, or `error` with the number of the structure, type, message and traceback.
    dict[str, np.ndarray]
        energy (s,), forces (n, 3), stress (s, 3, 3), and energies (n,) where all structures have them.
    """
    found, begin = [], 0
    for index, count in enumerate(arrays["counts"].tolist()):
        own = slice(begin, begin + count)
        begin += count
        atoms = Atoms(
            numbers=arrays["numbers"][own],
            positions=arrays["positions"][own],
            cell=arrays["cells"][index],
            pbc=arrays["pbc"][index].astype(bool),
        )
        for name, values in (("charge", arrays["charges"]), ("spin", arrays["spins"])):
            if np.isfinite(values[index]):  # NaN: the structure does not say
                atoms.info[name] = float(values[index])
        try:
            found.append(_checked(len(atoms), *evaluate_one(atoms, calculator)))
        except Exception as error:
            return _failure(error, index), {}
        sign()
    energy, forces, stress, energies = zip(*found, strict=True)
    answer = {"energy": np.array(energy), "forces": np.concatenate(forces), "stress": np.array(stress)}
    if all(each is not None for each in energies):
        answer["energies"] = np.concatenate(energies)
    return {"kind": "results"}, answer


def _checked(
    n: int, energy: float, forces: np.ndarray, stress: np.ndarray | None, energies: np.ndarray | None
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray | None]:
    """Results of n atoms with the shapes that they have to have, and NaN for no stress."""
    if forces.shape != (n, 3):
        raise ValueError(f"the forces of {n} atoms have shape {forces.shape}")
    if stress is None:
        return energy, forces, np.full((3, 3), np.nan), energies
    if stress.shape != (3, 3) or not np.isfinite(stress).all():
        raise ValueError(f"the stress has shape {stress.shape}, or is NaN or infinite")
    return energy, forces, stress, energies


def _failure(error: BaseException, index: int | None = None) -> dict[str, Any]:
    text = f"{type(error).__name__}: {error}"
    memory = isinstance(error, MemoryError) or "out of memory" in text.lower() or "RESOURCE_EXHAUSTED" in text
    trace = "".join(traceback.format_exception(error))[-20_000:]
    return {"kind": "error", "index": index, "message": text[:2000], "memory": memory, "traceback": trace}


def _requests(descriptor: int) -> "queue.SimpleQueue[tuple[dict[str, Any], Arrays]]":
    """Messages of the parent, read by a thread that ends this process when the parent closes the pipe or dies."""
    messages: queue.SimpleQueue[tuple[dict[str, Any], Arrays]] = queue.SimpleQueue()

    def read_all() -> None:
        stream = os.fdopen(descriptor, "rb")

        def read(count: int) -> bytes:
            data = stream.read(count)
            if len(data) < count:
                os._exit(0)
            return data

        while True:
            try:
                messages.put(unpack(read))
            except ProtocolError as error:
                print(f"calculator_child: {error}", file=sys.stderr, flush=True)
                os._exit(3)

    threading.Thread(target=read_all, daemon=True).start()
    return messages


def main() -> None:
    """Serve the parent until it closes the pipe.

    Standard output of the calculator goes to standard error, so that nothing it prints gets among the messages.
    """
    requests, answers = os.dup(0), os.dup(1)  # not inherited by programs that the calculator starts
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def send(header: Mapping[str, Any], arrays: Arrays | None = None) -> None:
        data = memoryview(pack(header, arrays))
        while data:
            data = data[os.write(answers, data) :]

    messages = _requests(requests)
    recipe, _ = messages.get()
    try:
        calculator, description = build(recipe)
    except BaseException as error:  # also SystemExit, which some packages raise
        send(_failure(error))
        return
    send({"kind": "ready", **description})
    last = time.monotonic()

    def sign() -> None:
        nonlocal last
        if time.monotonic() - last > SECONDS_BETWEEN_SIGNS:
            last = time.monotonic()
            send({"kind": "alive"})

    while True:
        _, arrays = messages.get()
        last = time.monotonic()
        send(*evaluate(arrays, calculator, sign))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        main()
