"""Born charges of a polar crystal: read for the crystal of a file, and assigned to the atoms of the relaxed crystal."""

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from phonopy.file_IO import parse_BORN
from pydantic import ValidationError

from esen_flows.errors import InputError
from esen_flows.physics.lattice.adapter import (
    given_primitive_matrix,
    new_phonopy,
    primitive_cell,
    primitive_of,
    symmetric_born,
)
from esen_flows.physics.lattice.datasets import Nac
from esen_flows.physics.lattice.files import check_text_file, read_phonopy_file
from esen_flows.physics.lattice.masses import ase_atoms, phonopy_atoms
from esen_flows.physics.symmetry import conventional_cell
from esen_flows.schemas.born_charges import KEY_DECIMALS, BornCharges
from esen_flows.schemas.documents import StructureData
from esen_flows.schemas.lattice_documents import ForcesOutput
from esen_flows.schemas.lattice_versions import LATTICE_BACKEND
from esen_flows.schemas.protocols import ConductivityProtocol, PhononProtocol

# Beyond this, phonopy warns that charges break the symmetry. A wrong order or orientation breaks it by far more.
CHARGE_TOLERANCE_E = 0.1
DIELECTRIC_TOLERANCE = 0.02  # relative to the largest component
# A relaxation strains a cell by a few percent, moves atoms by less than half a bond, and does not rotate the crystal.
STRAIN_TOLERANCE = 0.1
ROTATION_TOLERANCE = 0.01
SHIFT_TOLERANCE_ANGSTROM = 0.5


def read_born(path: Path, atoms: Atoms, protocol: PhononProtocol | ConductivityProtocol) -> BornCharges:
    """Charges and dielectric tensor of a crystal from phonopy's files, for the `born` of a protocol.

    A yaml file (phonopy_params.yaml, phono3py_params.yaml, also compressed) holds the cell of its charges, which is
    compared with `atoms`: another crystal, or the same one in another orientation, is refused.

    A BORN file lists charges of the symmetry-independent atoms of the primitive cell that phonopy finds for the unit
    cell, in the order and orientation of that cell, but does not hold the cell: `atoms` has to be it. Charges that
    break the symmetry of the crystal or do not sum to zero are refused. That finds most wrong orders and orientations,
    not all: prefer the yaml file where there is one.

    Charges are made symmetric and neutral by phonopy's `symmetrize_borns_and_epsilon`.

    Parameters
    ----------
    path
        BORN, or a yaml file (its name contains ".yaml") with `nac_params`.
    atoms
        The structure; with BORN the unit cell of the calculation.
    protocol
        Protocol that will use the charges; its displacement's `symprec_angstrom` decides which atoms are equivalent.

    Returns
    -------
    BornCharges
        The charges in e and the dielectric tensor, with their primitive cell.

    Raises
    ------
    StructureError
        The structure is not a crystal.
    InputError
        The file is missing, has another format or another number of independent atoms, or its charges are not those of
        this crystal in this orientation.
    """
    symprec = protocol.displacement.symprec_angstrom
    conventional_cell(atoms, symprec)  # raises for structures that are not crystals
    primitive, found = _read(Path(path), atoms, symprec)
    charges, dielectric = _symmetric(primitive, found["born"], found["dielectric"], symprec, str(path))
    factor = {"factor_ev_angstrom": found["factor"]} if "factor" in found else {}
    try:
        born = _charges_of(primitive, charges_e=charges.tolist(), dielectric=dielectric.tolist(), **factor)
    except ValidationError as error:
        fault = error.errors()[0]
        where = "".join(f"{part}: " for part in fault["loc"][:1])
        raise InputError(f"{path}: {where}{fault['msg'].removeprefix('Value error, ')}; correct the file") from error
    check_born(born, atoms, symprec)
    return born


def _charges_of(primitive: Atoms, **tensors: Any) -> BornCharges:
    return BornCharges(
        numbers=primitive.numbers.tolist(),
        cell_angstrom=primitive.cell.array.tolist(),
        fractions=(primitive.get_scaled_positions().round(KEY_DECIMALS) % 1.0).tolist(),  # 0, not sometimes 1
        **tensors,
    )


def _read(path: Path, atoms: Atoms, symprec: float) -> tuple[Atoms, Nac]:
    """The primitive cell of a file, and its charges as phonopy's readers give them."""
    if not path.is_file():
        raise InputError(f"no file {path}; give phonopy's BORN, or its phonopy_params.yaml")
    has_cell = ".yaml" in path.name
    try:
        primitive, found = _read_yaml(path, symprec) if has_cell else _read_born(atoms, path, symprec)
    except InputError:
        raise
    except Exception as error:  # the readers raise errors of every kind
        reason = " ".join(str(error).split()).rstrip(".")
        if has_cell:
            raise InputError(f"{path} cannot be read as a yaml file of phonopy or phono3py: {reason}") from error
        raise InputError(
            f"{path} cannot be read as phonopy's BORN of {atoms.get_chemical_formula()}: {reason}. It holds a line "
            "with the unit conversion factor, one with the dielectric tensor, and one for each symmetry-independent "
            f"atom (found with symprec_angstrom={symprec:g})"
        ) from error
    if not {"born", "dielectric"} <= set(found):
        raise InputError(f"{path} holds no Born charges (nac_params); give a file that does, or a BORN file")
    if unknown := set(found) - {"born", "dielectric", "factor"}:
        raise InputError(f"{path} sets {', '.join(sorted(unknown))}, which is not used here; leave it out of the file")
    shapes = {"born": (len(primitive), 3, 3), "dielectric": (3, 3), "factor": ()}
    return primitive, {name: _numbers(value, shapes[name], f"{path}: {name}") for name, value in found.items()}


def _numbers(value: Any, shape: tuple[int, ...], name: str) -> Any:
    """Finite numbers of a shape; a plain number for the shape ()."""
    try:
        array = np.asarray(value, dtype=float)
    except (ValueError, TypeError) as error:
        raise InputError(f"{name} is not made of numbers ({error}); correct the file") from error
    if array.shape != shape:
        raise InputError(f"{name} has the shape {array.shape} instead of {shape}; correct the file")
    if not np.isfinite(array).all():
        raise InputError(f"{name} has NaN or infinite numbers; correct the file")
    return array if shape else float(array)


def _read_yaml(params: Path, symprec: float) -> tuple[Atoms, Nac]:
    """The primitive cell of a yaml file and its `nac_params`; empty where the file has none."""
    data = read_phonopy_file(params)
    cell = StructureData.from_atoms(ase_atoms(data.unitcell))
    phonon = new_phonopy(cell, np.eye(3, dtype=int), given_primitive_matrix(data), symprec)
    return ase_atoms(phonon.primitive, cell), dict(data.nac_params or {})


def _read_born(atoms: Atoms, born: Path, symprec: float) -> tuple[Atoms, Nac]:
    """The primitive cell of a unit cell, and the contents of a BORN file spread over its equivalent atoms."""
    primitive = primitive_cell(atoms, symprec)
    cell = phonopy_atoms(StructureData.from_atoms(primitive))
    words = check_text_file(born).decode("utf-8", "replace").split()
    if odd := [word for word in words if word.lower().lstrip("+-") in ("nan", "inf", "infinity")]:
        raise InputError(f"{born} holds {odd[0]}; correct the file")
    return primitive, dict(parse_BORN(cell, symprec=symprec, filename=born, lang=LATTICE_BACKEND))


def check_born(born: BornCharges, atoms: Atoms, symprec_angstrom: float) -> None:
    """Refuse charges of another crystal before anything is computed for this one.

    Parameters
    ----------
    born
        The charges.
    atoms
        The crystal, in any cell.
    symprec_angstrom
        Distance tolerance of the symmetry in Angstrom.

    Raises
    ------
    InputError
        The charges belong to another crystal, or to this one in another orientation.
    """
    cell = conventional_cell(atoms, symprec_angstrom)
    _parameters(born, primitive_cell(cell, symprec_angstrom), symprec_angstrom)


def born_parameters(born: BornCharges, forces: ForcesOutput) -> Nac:
    """The charges in the order of the primitive cell of displaced forces, as phonopy takes them.

    Atoms are identified by their positions: cells may differ in the choice of lattice vectors, in order and origin, and
    by a relaxation. Charges are made symmetric again, because a relaxation may have raised the symmetry.

    Parameters
    ----------
    born
        The charges.
    forces
        Displaced forces of the relaxed crystal.

    Returns
    -------
    Nac
        phonopy's `nac_params`.

    Raises
    ------
    InputError
        The charges belong to another crystal, or to this one in another orientation: they are tensors along the axes of
        their own crystal.
    """
    return _parameters(born, primitive_of(forces), forces.symprec_angstrom)


def _parameters(born: BornCharges, primitive: Atoms, symprec: float) -> Nac:
    reference = Atoms(born.numbers, scaled_positions=born.fractions, cell=born.cell_angstrom, pbc=True)
    order = _atom_order(reference, primitive)
    what = f"born, moved to the relaxed {primitive.get_chemical_formula()}"
    charges, dielectric = _symmetric(
        primitive, np.array(born.charges_e)[order], np.array(born.dielectric), symprec, what
    )
    return {"born": charges, "dielectric": dielectric, "factor": born.factor_ev_angstrom}


def _symmetric(
    primitive: Atoms, charges: np.ndarray, dielectric: np.ndarray, symprec: float, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Charges (n, 3, 3) and dielectric tensor, symmetric and neutral; refused where this changes them by too much."""
    own, tensor = symmetric_born(primitive, charges, dielectric, symprec)
    off = np.abs(own - charges).max(axis=(1, 2))
    worst = int(off.argmax())
    if off[worst] > CHARGE_TOLERANCE_E:
        raise InputError(
            f"{what}: charges break the symmetry of {primitive.get_chemical_formula()} or do not sum to zero, by "
            f"{off[worst]:.2f} e at atom {worst} ({primitive.symbols[worst]}) of its primitive cell; give the "
            "structure in the order and orientation of the calculation that the charges are from"
        )
    deviation = float(
        np.abs(tensor - dielectric).max() / (np.abs(dielectric).max() or 1.0)
    )  # all zero is refused by BornCharges
    if deviation > DIELECTRIC_TOLERANCE:
        raise InputError(
            f"{what}: the dielectric tensor breaks the symmetry of {primitive.get_chemical_formula()} by "
            f"{100 * deviation:.0f} %; give the structure in the orientation of the calculation that it is from"
        )
    return own, tensor


def _atom_order(reference: Atoms, primitive: Atoms) -> np.ndarray:
    """Index (n,) in the reference of each atom of a primitive cell of the same crystal in the same orientation."""
    ours, theirs = primitive.get_chemical_formula(), reference.get_chemical_formula()
    if sorted(reference.numbers) != sorted(primitive.numbers):
        raise InputError(f"born holds charges of {theirs} per primitive cell, this crystal has {ours}; read its own")
    lattice = _same_lattice(reference, primitive)
    fractions = reference.positions @ np.linalg.inv(lattice)
    rarest = min(reference.numbers, key=lambda number: (int((reference.numbers == number).sum()), number))
    first = fractions[reference.numbers == rarest][0]
    origins = primitive.get_scaled_positions()[primitive.numbers == rarest] - first
    found = [_match(reference.numbers, fractions + origin, primitive) for origin in origins]
    order, distance = min(found, key=lambda match: match[1])
    if distance > SHIFT_TOLERANCE_ANGSTROM:
        raise InputError(
            f"born holds charges of another {theirs}: atoms of this crystal are more than {SHIFT_TOLERANCE_ANGSTROM} "
            "Angstrom from the positions of its atoms; read the charges with this structure"
        )
    return order


def _same_lattice(reference: Atoms, primitive: Atoms) -> np.ndarray:
    """Vectors (3, 3) of the reference's lattice that equal those of the primitive cell up to a small strain."""
    change = np.rint(primitive.cell.array @ np.linalg.inv(reference.cell.array))
    if abs(round(float(np.linalg.det(change)))) == 1:
        lattice = np.asarray(change @ reference.cell.array)
        left, stretches, right = np.linalg.svd(np.linalg.inv(lattice) @ primitive.cell.array)
        turned = float(np.abs(left @ right - np.eye(3)).max())
        if np.abs(stretches - 1).max() <= STRAIN_TOLERANCE and turned <= ROTATION_TOLERANCE:
            return lattice
    raise InputError(
        f"born holds charges for a cell of {reference.get_chemical_formula()} that is turned or strained against this "
        f"one: lattice vectors {reference.cell.array.round(3).tolist()} there, {primitive.cell.array.round(3).tolist()}"
        " here (Angstrom, primitive cells); read the charges with this structure, in the orientation of the "
        "calculation that they are from"
    )


def _match(numbers: np.ndarray, fractions: np.ndarray, primitive: Atoms) -> tuple[np.ndarray, float]:
    """Index (n,) of the nearest atom of the same element, and the largest distance in Angstrom.

    Distances are those that remain after a common shift; infinite where two atoms have the same nearest atom.
    """
    apart = primitive.get_scaled_positions()[:, None] - fractions[None]
    vectors = (apart - np.rint(apart)) @ primitive.cell.array
    distances = np.where(primitive.numbers[:, None] == numbers[None], np.linalg.norm(vectors, axis=2), np.inf)
    order = distances.argmin(axis=1)
    if len(set(order.tolist())) < len(order):
        return order, np.inf
    shifts = vectors[np.arange(len(order)), order]
    return order, float(np.linalg.norm(shifts - shifts.mean(axis=0), axis=1).max())
