"""Rows of the files of a submission as plain values, for pages that show all materials."""

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from esen_flows.errors import InputError
from esen_flows.metrics.artefacts import BROKEN


def read_relaxations(path: Path) -> Iterator[dict[str, Any]]:
    """What the file of the geometry task says of each relaxation, without making structures, which takes long.

    Parameters
    ----------
    path
        File with an object in each line.

    Yields
    ------
    dict
        "material", "elements" (one for each atom), "energy_ev_per_atom", "converged" and "n_steps" of a crystal.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            for row in map(json.loads, stream):
                elements = [str(site["species"][0]["element"]) for site in row["structure"]["sites"]]
                yield {
                    "material": str(row["material_id"]),
                    "elements": elements,
                    "energy_ev_per_atom": float(row["energy"]) / len(elements),
                    "converged": bool(row["converged"]),
                    "n_steps": int(row["n_steps"]),
                }
    except (*BROKEN, ZeroDivisionError) as error:
        raise InputError(f"{path}: no relaxed structures can be read ({type(error).__name__}: {error})") from None


def read_symmetries(path: Path) -> dict[str, dict[str, float | None]]:
    """Distances and symmetries of the file that `write_symmetries` writes.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict
        "space_group", "symmetry_operations" and "rmsd" by material; None for what is not known.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    names = {"space_group": "spg_num", "symmetry_operations": "n_sym_ops", "rmsd": "structure_rmsd_vs_dft"}
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
            return {
                row["material_id"]: {name: float(row[one]) if row[one] else None for name, one in names.items()}
                for row in csv.DictReader(stream)
            }
    except BROKEN as error:
        raise InputError(f"{path}: no symmetries can be read ({type(error).__name__}: {error})") from None
