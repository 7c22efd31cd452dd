"""What `esen_speed` times: structures, networks, and the rows of each selection."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms

RATTLE_ANGSTROM = 0.05
Structure = Literal["Si", "Cu", "diamond", "water"]


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes
    ----------
    model
        a name of `esen_flows.network.esen.config.PUBLISHED`.
    structure, atoms
        which crystal or liquid, and how much of it.
    dtype
        of the arithmetic.
    memory_bytes
        what our force field plans with; None: its default. Of what does not fit, messages are computed once
        more for the gradient.
    references
        whether the references run it too, and errors are measured.
    """

    model: str
    structure: Structure
    atoms: int
    dtype: Literal["float32", "float64"] = "float32"
    memory_bytes: float | None = None
    references: bool = True

    @property
    def name(self) -> str:
        """For people and for selecting rows."""
        memory = "" if self.memory_bytes is None else f"/{self.memory_bytes / 1e9:g} GB"
        return f"{self.model}/{self.structure}/{self.atoms}/{self.dtype}{memory}"


UNLIMITED, FRUGAL = 1e12, 0.5e9  # nothing is computed twice; nearly all is
SMALL, LARGE = "esen_3.2m", "esen_30m_mp"
QUICK = [
    Case(SMALL, "Si", 216),
    Case(LARGE, "Si", 64),
    Case(LARGE, "Si", 216),
    Case(LARGE, "Si", 216, memory_bytes=FRUGAL, references=False),
    Case(LARGE, "Si", 216, memory_bytes=UNLIMITED, references=False),
]
FULL = [
    *QUICK,
    Case(SMALL, "Si", 8),
    Case(SMALL, "Si", 64),
    Case(SMALL, "Si", 1000),
    Case(SMALL, "Cu", 108),
    Case(SMALL, "diamond", 64),
    Case(SMALL, "water", 192),
    Case(LARGE, "Si", 8),
    Case(LARGE, "Si", 1000, references=False),  # the reference was seen to need 44 MB an atom
    Case(SMALL, "Si", 64, "float64"),
    Case(SMALL, "Si", 216, "float64"),
    Case(LARGE, "Si", 64, "float64"),
]
SMOKE = [Case(SMALL, "Si", 8), Case(SMALL, "Si", 64), Case(LARGE, "Si", 8)]
# Nothing computed twice at any size: with a bound on memory, the cost of an atom rises where recomputation begins.
SCALING = [
    *(Case(SMALL, "Si", atoms, memory_bytes=UNLIMITED, references=False) for atoms in (64, 216, 512, 1000, 4096, 8000)),
    *(Case(SMALL, "Si", atoms, references=False) for atoms in (1000, 8000, 20000)),
]
# One structure of 216 atoms is what molecular dynamics is quoted for; the larger ones show when the machine is full.
GPU = [
    *(Case(SMALL, "Si", atoms) for atoms in (8, 64, 216)),
    *(Case(SMALL, "Si", atoms, references=False) for atoms in (1000, 8000, 10000)),
    *(Case(LARGE, "Si", atoms) for atoms in (64, 216)),
    Case(LARGE, "Si", 1000, references=False),
    Case(SMALL, "Si", 216, "float64"),
]


def structure(kind: Structure, atoms: int) -> Atoms:
    """A rattled structure of so many atoms, turned so that no bond of the crystal lies along an axis.

    The first generation of the reference snaps edges within 1.4e-3 rad of y; a turned crystal has none.

    Raises
    ------
    ValueError
        the structure does not come in this size.
    """
    made = _water(atoms) if kind == "water" else _crystal(kind, atoms)
    made.rattle(RATTLE_ANGSTROM, seed=0)
    turn = _rotation(np.random.default_rng(1))
    made.set_cell(made.cell.array @ turn.T, scale_atoms=True)
    return made


_FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
_DIAMOND = np.array([[0, 0, 0], [0.25, 0.25, 0.25]])
_CRYSTALS = {"Si": ("Si", 5.431, _DIAMOND), "Cu": ("Cu", 3.61, np.zeros((1, 3))), "diamond": ("C", 3.57, _DIAMOND)}


def _crystal(kind: Structure, atoms: int) -> Atoms:
    # By hand: ase.build needs scipy, which a bare GPU machine may lack.
    symbol, constant, basis = _CRYSTALS[kind]
    sites = (_FCC[:, None] + basis).reshape(-1, 3)
    unit = Atoms(f"{symbol}{len(sites)}", scaled_positions=sites, cell=[constant] * 3, pbc=True)
    cells, rest = divmod(atoms, len(unit))
    repeats = _box(cells) if cells and not rest else None
    if repeats is None:
        raise ValueError(f"{kind} comes in cells of {len(unit)} atoms, got {atoms}")
    return unit * repeats


def _box(cells: int) -> tuple[int, int, int]:
    """The three factors of a number that are most alike."""
    factors = [
        (i, j, cells // (i * j))
        for i in range(1, cells + 1)
        if cells % i == 0
        for j in range(i, cells // i + 1)
        if (cells // i) % j == 0 and cells // (i * j) >= j
    ]
    return min(factors, key=sum)


def _water(atoms: int) -> Atoms:
    """Randomly turned molecules on a lattice at 1 g/cm3."""
    side = round((atoms / 3) ** (1 / 3))
    if 3 * side**3 != atoms:
        raise ValueError(f"water comes as a cube of molecules (24, 81, 192, ... atoms), got {atoms}")
    spacing = 3.1  # Angstrom between molecules
    molecule = np.array([[0.0, 0.0, 0.0], [0.9572, 0.0, 0.0], [-0.2399, 0.9266, 0.0]])
    generator = np.random.default_rng(0)
    turns = np.stack([_rotation(generator) for _ in range(side**3)])
    corners = spacing * np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    positions = np.einsum("nij,aj->nai", turns, molecule) + corners[:, None]
    return Atoms("OHH" * side**3, positions=positions.reshape(-1, 3), cell=[side * spacing] * 3, pbc=True)


def _rotation(generator: np.random.Generator) -> np.ndarray:
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    return turn * np.linalg.det(turn)  # a mirror image has determinant -1


def moved(positions: np.ndarray, call: int) -> np.ndarray:
    """The positions of a call: each differs a little from the last, as in molecular dynamics, so nothing can be kept.

    Call 0 is the structure itself; its numbers are compared.
    """
    if call == 0:
        return positions
    return positions + np.random.default_rng(call).normal(scale=0.001, size=positions.shape)
