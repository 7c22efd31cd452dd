"""Force constants of the crystals of a recipe by a labelling force field, as phonon calculations of phonopy."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ase import Atoms

from esen_flows.data.prototypes import Crystal, perfect
from esen_flows.data.size_classes import by_size_class
from esen_flows.errors import InputError
from esen_flows.files import written_whole
from esen_flows.forcefield.contract import ForceField
from esen_flows.physics.lattice.adapter import new_phonopy
from esen_flows.physics.lattice.datasets import with_forces
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.schemas.keys import sha256_of
from esen_flows.schemas.protocols import DisplacementProtocol

_HEADER = "phonons.json"
# Of the conventional cell.
_REPEAT, _REPEAT_WURTZITE = (2, 2, 2), (3, 3, 2)
Progress = Callable[[str, int, int], None]


def write_phonons(
    crystals: Sequence[Crystal],
    force_field: ForceField,
    folder: Path | str,
    progress: Progress | None = None,
    *,
    displacement_angstrom: float = 0.01,
) -> list[Path]:
    """Compute the phonons of crystals in supercells of 64 atoms (wurtzite: 72), one folder for each.

    Every file is written when its crystal is done; a call that was interrupted goes on after the last one. The folder
    lists all crystals from the start (`written_crystals`), so that a part of them is not taken for all.

    Parameters
    ----------
    crystals
        Crystals at their equilibrium by the force field: forces of the undisplaced ones are not subtracted.
    force_field
        Conservative force field.
    folder
        Receives NAME/phonopy_params.yaml with displacements and forces, for `train --phonons`.
    progress
        Called with the name of a crystal, the number of those that are done and the number of all.
    displacement_angstrom
        Length of the displacements; 0.01 Angstrom is phonopy's own.

    Returns
    -------
    list[Path]
        The files, in the order of the crystals.

    Raises
    ------
    InputError
        The folder holds phonons of another force field or displacement, or a crystal has no geometry.
    EsenFlowsError
        The force field fails, or is not conservative, as in `displaced_forces`.
    """
    header = Path(folder) / _HEADER
    identity = _identity(force_field, displacement_angstrom)
    done = _done(header, identity)
    order = by_size_class([_supercell(crystal) for crystal in crystals], force_field.declaration.cutoff_angstrom)
    files = {crystal.name: header.with_name(crystal.name) / "phonopy_params.yaml" for crystal in crystals}
    hashes = {one.name: sha256_of(asdict(one) | {"species": list(one.species)}) for one in crystals}
    done = {name: value for name, value in done.items() if hashes.get(name) == value and files[name].is_file()}

    def write_header() -> None:
        content = {"identity": identity, "labeller": force_field.label, "crystals": list(files), "done": done}
        with written_whole(header) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    header.parent.mkdir(parents=True, exist_ok=True)
    write_header()
    for number, crystal in enumerate((crystals[index] for index in order), start=1):
        if crystal.name not in done:
            _write(crystal, force_field, files[crystal.name], displacement_angstrom)
            done[crystal.name] = hashes[crystal.name]
            write_header()
        if progress is not None:
            progress(crystal.name, number, len(crystals))
    return list(files.values())


def refuse_foreign_phonons(folder: Path | str, force_field: ForceField, *, displacement_angstrom: float = 0.01) -> None:
    """Refuse a folder that `write_phonons` would refuse, before hours of other work.

    Parameters
    ----------
    folder
        The folder, which need not exist.
    force_field, displacement_angstrom
        As they are given to `write_phonons`.

    Raises
    ------
    InputError
        The folder holds phonons of another force field or displacement.
    """
    _done(Path(folder) / _HEADER, _identity(force_field, displacement_angstrom))


def _identity(force_field: ForceField, displacement_angstrom: float) -> str:
    return sha256_of({"force_field": force_field.key, "displacement_angstrom": displacement_angstrom})


def written_crystals(folder: Path) -> list[str] | None:
    """The crystals of a folder of `write_phonons`.

    Parameters
    ----------
    folder
        A folder.

    Returns
    -------
    list[str]
        Their names, which are those of the folders of their phonons; None: `write_phonons` has not made the folder.

    Raises
    ------
    InputError
        Some of them are not computed yet, or the list is damaged.
    """
    header = folder / _HEADER
    if not header.is_file():
        return None
    content = _read(header)
    names = content.get("crystals", list(content["done"]))
    if missing := [name for name in names if name not in content["done"]]:
        raise InputError(
            f"{len(missing)} of {len(names)} crystals of {folder} are not computed yet ({', '.join(missing[:5])}); run "
            "the command that makes it (esen-flows label --phonons) to its end"
        )
    return sorted(names)


def _read(header: Path) -> dict[str, Any]:
    try:
        content = json.loads(header.read_text(encoding="utf-8"))
        return {**content, "done": dict(content["done"]), "identity": str(content["identity"])}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{header} is damaged: {error!r:.200}; delete its folder and compute it again") from error


def _done(header: Path, identity: str) -> dict[str, str]:
    """Hashes of the crystals whose phonons are there, by name."""
    if not header.is_file():
        return {}
    content = _read(header)
    if content["identity"] != identity:
        raise InputError(
            f"{header.parent} holds phonons by {content.get('labeller')!r} or with other displacements; choose another "
            "folder"
        )
    found: dict[str, str] = content["done"]
    return found


def _supercell(crystal: Crystal) -> Atoms:
    cubic = crystal.prototype != "wurtzite"
    return perfect(crystal, cubic=cubic).repeat(_REPEAT if cubic else _REPEAT_WURTZITE)


def _write(crystal: Crystal, force_field: ForceField, file: Path, displacement_angstrom: float) -> None:
    a, b, c = _REPEAT_WURTZITE if crystal.prototype == "wurtzite" else _REPEAT
    protocol = DisplacementProtocol(
        order=2,
        displacement_angstrom=displacement_angstrom,
        fc2_supercell=((a, 0, 0), (0, b, 0), (0, 0, c)),
        setting="canonical",
    )
    forces = displaced_forces(perfect(crystal), force_field, protocol)
    phonon = new_phonopy(forces.unitcell, forces.supercell_matrix_fc2, forces.primitive_matrix, forces.symprec_angstrom)
    phonon.dataset = with_forces(forces.displacements_fc2, forces.forces_fc2)
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(file) as temporary:
        phonon.save(temporary, settings={"force_sets": True})
