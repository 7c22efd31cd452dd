"""The records of a labelled dataset as columns, the form in which small datasets are in the database.

For n structures with N atoms in all: n_atoms (n,), numbers (N,), positions_angstrom (N, 3), forces_ev_per_angstrom
(N, 3), energies_ev (n,), stresses_ev_per_angstrom3 (n, 3, 3) with NaN for none, cells_angstrom (n, 3, 3), pbc (n, 3),
charges and spins (n,), groups and materials (n,) as indices into group_names and material_names (-1: no material).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

if TYPE_CHECKING:
    from esen_flows.data.dataset import Dataset
    from esen_flows.data.labelled import LabelledStructure


def columns_of(dataset: "Dataset") -> dict[str, np.ndarray]:
    """The columns of a dataset.

    Parameters
    ----------
    dataset
        The dataset, all of which is read.

    Returns
    -------
    dict of str to np.ndarray
        The columns by name.
    """
    items = list(dataset)
    return {
        "n_atoms": np.asarray(dataset.n_atoms, dtype=np.int64),
        "numbers": np.concatenate([item.atoms.numbers for item in items]).astype(np.uint8),
        "positions_angstrom": np.concatenate([item.atoms.positions for item in items]),
        "forces_ev_per_angstrom": np.concatenate([item.forces for item in items]),
        "energies_ev": np.array([item.energy for item in items], dtype=np.float64),
        "stresses_ev_per_angstrom3": np.stack([item.stress for item in items]),
        "cells_angstrom": np.stack([item.atoms.cell.array for item in items]),
        "pbc": np.stack([item.atoms.pbc for item in items]),
        "charges": np.array([item.atoms.info.get("charge", 0) for item in items], dtype=np.int64),
        "spins": np.array([item.atoms.info.get("spin", 0) for item in items], dtype=np.int64),
        "groups": np.asarray(dataset.group, dtype=np.int64),
        "group_names": np.array(dataset.group_names, dtype=np.str_),
        "materials": np.asarray(dataset.material, dtype=np.int64),
        "material_names": np.array(dataset.material_names, dtype=np.str_),
    }


def structures_of(columns: dict[str, np.ndarray]) -> "Iterator[LabelledStructure]":
    """The labelled structures in columns.

    Parameters
    ----------
    columns
        The columns by name.

    Yields
    ------
    LabelledStructure
        The structures in their order.
    """
    from esen_flows.data.labelled import LabelledStructure

    ends = np.cumsum(columns["n_atoms"])
    for index, (count, end) in enumerate(zip(columns["n_atoms"].tolist(), ends.tolist(), strict=True)):
        rows = slice(end - count, end)
        atoms = Atoms(
            columns["numbers"][rows].astype(int),
            positions=columns["positions_angstrom"][rows],
            cell=columns["cells_angstrom"][index],
            pbc=columns["pbc"][index],
        )
        for name in ("charge", "spin"):
            if columns[f"{name}s"][index]:
                atoms.info[name] = int(columns[f"{name}s"][index])
        material = int(columns["materials"][index])
        yield LabelledStructure(
            atoms=atoms,
            energy=float(columns["energies_ev"][index]),
            forces=columns["forces_ev_per_angstrom"][rows],
            stress=columns["stresses_ev_per_angstrom3"][index],
            group=str(columns["group_names"][columns["groups"][index]]),
            material=str(columns["material_names"][material]) if material >= 0 else "",
        )
