"""Structures of a campaign, one after the other in little memory: from files, from the store, or of a published set.

Nothing here downloads published sets: the user does, and thereby accepts their terms.
"""

import bz2
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from ase import Atoms

from esen_flows.errors import InputError
from esen_flows.schemas.atom_properties import properties_of
from esen_flows.schemas.campaign import CampaignSpec, PublishedSet
from esen_flows.schemas.keys import atoms_key
from esen_flows.schemas.named_protocols import FC2_SUPERCELL, own_settings
from esen_flows.settings import get_settings
from esen_flows.store.queries.crystals import stream_atoms
from esen_flows.store.queries.query import stream_structures
from esen_flows.store.results import Store
from esen_flows.structures.files import EXTENDED_XYZ, extxyz_frames, numbered_structures, split_index
from esen_flows.yaml_files import plain_value

_NAMES = ("material_id", "mp_id")  # fields of `atoms.info` that may name a structure


@dataclass(frozen=True)
class PlannedStructure:
    """An input structure of a campaign.

    Attributes
    ----------
    atoms
        The structure, with charge and spin in `info` if it has any.
    key
        Structure key.
    label
        Material id, or the file and the place in the file.
    material_ids
        Material ids to note in the store.
    own
        Supercells and mesh that the structure says for itself.
    known
        Stored fields (formula, nsites, ...); None: the structure comes from a file.
    """

    atoms: Atoms
    key: str
    label: str
    material_ids: tuple[str, ...] = ()
    own: dict[str, Any] = field(default_factory=dict)
    known: dict[str, Any] | None = None


@dataclass(frozen=True)
class StructureSet:
    """A published set of structures.

    Attributes
    ----------
    pattern
        Pattern of its file names.
    example
        Name of a file, for messages.
    url
        Address to download it from.
    licence
        Its name and licence.
    """

    pattern: str
    example: str
    url: str
    licence: str


PUBLISHED: dict[PublishedSet, StructureSet] = {
    "wbm": StructureSet(
        "*wbm-initial-atoms*.extxyz*",
        "2024-08-04-wbm-initial-atoms.extxyz.zip",
        "https://figshare.com/files/48169597",
        "WBM, CC-BY-4.0, as Matbench Discovery packs it",
    ),
    "phonondb-103": StructureSet(
        "*phononDB-PBE*structures.extxyz",
        "2024-11-09-phononDB-PBE-103-structures.extxyz",
        "https://figshare.com/files/52179965",
        "PhononDB, CC-BY-4.0, as Matbench Discovery packs it",
    ),
    "mdr": StructureSet(
        "*.yaml.bz2",
        "mp-1000.yaml.bz2 and so on",
        "https://alexandria.icams.rub.de/data/phonon_benchmark/pbe/",
        "Alexandria's PBE version of the MDR phonons, CC-BY-4.0",
    ),
}

# Results by DFT that a benchmark compares with.
REFERENCES: dict[str, StructureSet] = {
    "discovery": StructureSet(
        "*wbm-summary*.csv*",
        "2023-12-13-wbm-summary.csv.gz",
        "https://figshare.com/files/64706751",
        "WBM, CC-BY-4.0, as Matbench Discovery packs it",
    ),
    "elements": StructureSet(
        "*mp-elemental-reference-entries*.json.gz",
        "2023-02-07-mp-elemental-reference-entries.json.gz",
        "https://figshare.com/files/40387775",
        "Materials Project, CC-BY-4.0, as Matbench Discovery packs it",
    ),
    "kappa-103": StructureSet(
        "*kappas*PBE*noNAC*.json.gz",
        "2024-11-09-kappas-phononDB-PBE-noNAC.json.gz",
        "https://figshare.com/files/59988539",
        "PhononDB, CC-BY-4.0, as Matbench Discovery packs it",
    ),
}


def planned_structures(spec: CampaignSpec, store: Store, on_bad: Callable[[str], None]) -> Iterator[PlannedStructure]:
    """The structures of a campaign, in the order of their source.

    Parameters
    ----------
    spec
        Specification of the campaign.
    store
        Store that a query of the specification is sent to.
    on_bad
        Called with the name and fault of each structure that cannot be read; it is left out.

    Returns
    -------
    Iterator[PlannedStructure]
        The structures.

    Raises
    ------
    InputError
        A file is missing, or a query has no meaning.
    """
    source = spec.structures
    if source.query is not None:
        filters = source.query.filters()
        return _of_store(store, filters) if source.query.of == "structures" else _relaxed(store, filters)
    if source.published == "mdr":
        return _of_mdr(published_files("mdr", source.folder), on_bad)
    files = source.file
    if source.published is not None:
        files = tuple(map(str, published_files(source.published, source.folder)))
    return (structure for name in files for structure in _of_file(Path(name), on_bad))


def published_files(name: str, folder: str | None, sets: Mapping[Any, StructureSet] = PUBLISHED) -> list[Path]:
    """The files of a published set.

    Parameters
    ----------
    name
        Name of the set.
    folder
        Folder of the files; None: `published/NAME` in ESEN_FLOWS_CACHE_DIR.
    sets
        Sets by name: those of structures, or `REFERENCES`.

    Returns
    -------
    list[Path]
        The files, sorted; all of "mdr", the first one of any other set.

    Raises
    ------
    InputError
        The files are not there; the message says what to download from where.
    """
    published = sets[name]
    place = get_settings().cache_dir / "published" / name if folder is None else Path(folder)
    found = sorted(place.glob(published.pattern)) if place.is_dir() else []
    if not found:
        raise InputError(
            f"{name} is not in {place}: fetch {published.example} from {published.url} ({published.licence}) into that "
            "folder, or name another folder by `folder`"
        )
    return found if name == "mdr" else found[:1]


def _of_store(store: Store, filters: dict[str, Any]) -> Iterator[PlannedStructure]:
    for record in stream_structures(store, **filters):
        ids = tuple(record.fields.get("material_ids", ()))
        label = ids[0] if ids else f"{record.fields['formula']} {record.key[:12]}"
        yield PlannedStructure(record.atoms, record.key, label, ids, known=record.fields)


def _relaxed(store: Store, filters: dict[str, Any]) -> Iterator[PlannedStructure]:
    for document, atoms in stream_atoms(store, "relax", **filters):
        atoms.calc = None
        ids = tuple(document.material_ids)
        label = ids[0] if ids else f"{document.formula} {document.structure_key[:12]}"
        yield PlannedStructure(atoms, atoms_key(atoms), label, ids)


def _of_file(path: Path, on_bad: Callable[[str], None]) -> Iterator[PlannedStructure]:
    file, _ = split_index(path)
    if file.suffix == ".zip":
        yield from _of_archive(file, on_bad)
        return
    for number, atoms in numbered_structures(path, on_bad):
        yield _planned(atoms, file, number)


def _of_archive(file: Path, on_bad: Callable[[str], None]) -> Iterator[PlannedStructure]:
    """Structures of the extended XYZ files in a zip archive."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = [name for name in archive.namelist() if name.endswith(EXTENDED_XYZ[:2])]
            if not members:
                raise InputError(f"{file} holds no extended XYZ file")
            for name in members:
                with archive.open(name) as stream:
                    frames = extxyz_frames(TextIOWrapper(stream, "utf-8"), Path(name), on_bad)
                    for number, atoms in frames:
                        if len(members) > 1:  # one file for each material, with its name
                            atoms.info.setdefault(_NAMES[0], _stem(Path(name)))
                        yield _planned(atoms, Path(name), number)
    except zipfile.BadZipFile as error:
        raise InputError(f"{file} is not a zip archive or is broken off ({error}); fetch it again") from error


def _of_mdr(files: list[Path], on_bad: Callable[[str], None]) -> Iterator[PlannedStructure]:
    """Unit cells in phonopy's files, with the supercells for which the files give forces."""
    for file in files:
        try:
            with bz2.open(file, "rt", encoding="utf-8") as stream:
                content = plain_value("".join(_sections(stream, ("unit_cell:", "supercell_matrix:"))))
            cell = content["unit_cell"]
            atoms = Atoms(
                [point["symbol"] for point in cell["points"]],
                scaled_positions=[point["coordinates"] for point in cell["points"]],
                cell=cell["lattice"],
                pbc=True,
            )
            atoms.info |= {_NAMES[0]: _stem(file), FC2_SUPERCELL: content["supercell_matrix"]}
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            on_bad(f"{file} is not a phonopy file of the MDR set ({error}); fetch it again")
        else:
            yield _planned(atoms, file, 0)


def _sections(stream: Iterable[str], wanted: tuple[str, ...]) -> Iterator[str]:
    """Lines of some fields of a YAML file; the whole file holds force constants and takes half a minute to parse."""
    inside = False
    for line in stream:
        if line[:1].isalpha():
            inside = line.startswith(wanted)
        if inside:
            yield line


def _planned(atoms: Atoms, file: Path, number: int) -> PlannedStructure:
    name = next((str(atoms.info[name]) for name in _NAMES if name in atoms.info), None)
    own = own_settings(atoms.info)
    kept = {key: atoms.info[key] for key in ("charge", "spin") if key in atoms.info}
    bare = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=kept)
    properties_of(atoms).attach(bare)
    ids = () if name is None else (name,)
    return PlannedStructure(bare, atoms_key(bare), name or f"{_stem(file)}@{number}", ids, own)


def _stem(file: Path) -> str:
    return file.name.partition(".")[0]
