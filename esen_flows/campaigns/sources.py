"""Structures of a campaign, one after the other in little memory: from files, from the store, or of a published set.

Nothing here downloads published sets: `esen-flows data pull` or the user does, and thereby accepts their terms.
"""

import bz2
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from esen_flows.data.importing import read_dataset
from esen_flows.data.labelled import LabelledStructure
from esen_flows.data.reference_sets.files import find, reference_set
from esen_flows.data.screening import ANY_FORCE
from esen_flows.errors import InputError
from esen_flows.metrics.md_artefact import read_reference_trajectories
from esen_flows.schemas.atom_properties import properties_of
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.schemas.keys import atoms_key
from esen_flows.schemas.named_protocols import FC2_SUPERCELL, own_settings
from esen_flows.schemas.structure_source import PublishedSet, StructureSource
from esen_flows.settings import get_settings
from esen_flows.store.queries.crystals import stream_atoms
from esen_flows.store.queries.query import stream_structures
from esen_flows.store.results import Store
from esen_flows.structures.files import EXTENDED_XYZ, extxyz_frames, numbered_structures, split_index
from esen_flows.yaml_files import plain_value, sections

_NAMES = ("material_id", "mp_id")  # fields of `atoms.info` that may name a structure


class ReferenceNotHereError(InputError):
    """A reference set is not on this machine."""


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
    assert source is not None  # a property of force fields has no structures, which `plan` knows
    if source.query is not None:
        filters = source.query.filters()
        return _of_store(store, filters) if source.query.of == "structures" else _relaxed(store, filters)
    if source.dataset:
        return (planned for planned, _ in labelled_structures(source))
    if source.published == "mdr":
        return _of_mdr(published_files("mdr", source.folder), on_bad)
    if source.published == "dynamat":
        file = published_files("dynamat", source.folder)[0]
        starts = enumerate(read_reference_trajectories(file, starts_only=True))
        return (one for number, found in starts for one in _planned_or_bad(found.start, file, number, on_bad))
    files = source.file
    if source.published is not None:
        files = tuple(map(str, published_files(source.published, source.folder)))
    return (structure for name in files for structure in structures_of_file(Path(name), on_bad))


def labelled_structures(source: StructureSource) -> Iterator[tuple[PlannedStructure, LabelledStructure]]:
    """Records of the labelled datasets of a campaign.

    Parameters
    ----------
    source
        Source with datasets.

    Yields
    ------
    tuple[PlannedStructure, LabelledStructure]
        The structure without labels, and the record; records without a group get the name of their dataset as one.

    Raises
    ------
    InputError
        A dataset is not there or cannot be read, or has fewer records than are to be drawn.
    """
    paths = [Path(name) for name in source.dataset]
    datasets = [read_dataset(path, limits=ANY_FORCE) for path in paths]
    places = [(number, index) for number, dataset in enumerate(datasets) for index in range(len(dataset))]
    if source.sample is not None:
        if source.sample > len(places):
            raise InputError(f"sample: {source.sample} of {len(places)} records; give a smaller number or leave it out")
        drawn = np.random.default_rng(0).choice(len(places), source.sample, replace=False)
        places = [places[place] for place in sorted(drawn.tolist())]
    for number, index in places:
        item = datasets[number][index]
        planned = _planned(item.atoms, paths[number], index)
        yield planned, replace(item, group=item.group or _stem(paths[number]))


def published_files(name: PublishedSet, folder: str | None) -> list[Path]:
    """The files of a published set of structures.

    Parameters
    ----------
    name
        Name of the set.
    folder
        Folder of the files; None: wherever `esen-flows data pull` or the user has put them.

    Returns
    -------
    list[Path]
        The files, sorted; all of "mdr", the first one of any other set.

    Raises
    ------
    ReferenceNotHereError
        The files are not there; the message says how to get them.
    """
    if folder is None:
        found = find(name, get_settings().reference_folder)
    else:
        found = sorted(Path(folder).glob(reference_set(name).pattern))
    if not found:
        raise _not_here(name, str(folder or get_settings().reference_folder), "name another folder by `folder`")
    return found if name == "mdr" else found[:1]


def reference_file(name: str, folder: str | None) -> Path:
    """The file of a reference set that results are compared with.

    Parameters
    ----------
    name
        Name of the set.
    folder
        Folder to look into first; after it, and with None, wherever `esen-flows data pull` or the user has put the set.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ReferenceNotHereError
        It is not there; the message says how to get it.
    """
    root = get_settings().reference_folder
    own = [] if folder is None else sorted(Path(folder).glob(reference_set(name).pattern))
    found = own or find(name, root)
    if not found:
        raise _not_here(name, f"{root}" if folder is None else f"{folder} or {root}", "put it into that folder")
    return found[0]


def _not_here(name: str, place: str, otherwise: str) -> ReferenceNotHereError:
    published = reference_set(name)
    what = published.files[0].name if published.files else published.pattern
    return ReferenceNotHereError(
        f"{name} is not in {place}: run esen-flows data pull {name}, or fetch {what} from {published.address} "
        f"({published.licence}) and {otherwise}; ESEN_FLOWS_REFERENCE_DIR names a folder of files that you have"
    )


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


def structures_of_file(path: Path, on_bad: Callable[[str], None]) -> Iterator[PlannedStructure]:
    """The structures of a file, one after the other.

    Parameters
    ----------
    path
        Structure file, which may be a zip archive of extended XYZ files; "FILE@3" is one structure of several.
    on_bad
        Called with the name and fault of each structure that cannot be read; it is left out.

    Yields
    ------
    PlannedStructure
        A structure.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    file, _ = split_index(path)
    if file.suffix == ".zip":
        yield from _of_archive(file, on_bad)
        return
    for number, atoms in numbered_structures(path, on_bad):
        yield from _planned_or_bad(atoms, file, number, on_bad)


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
                        yield from _planned_or_bad(atoms, Path(name), number, on_bad)
    except zipfile.BadZipFile as error:
        raise InputError(f"{file} is not a zip archive or is broken off ({error}); fetch it again") from error


def _of_mdr(files: list[Path], on_bad: Callable[[str], None]) -> Iterator[PlannedStructure]:
    """Unit cells in phonopy's files, with the supercells for which the files give forces."""
    for file in files:
        try:
            with bz2.open(file, "rt", encoding="utf-8") as stream:
                content = plain_value("".join(sections(stream, ("unit_cell:", "supercell_matrix:"))))
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
            yield from _planned_or_bad(atoms, file, 0, on_bad)


def _planned_or_bad(atoms: Atoms, file: Path, number: int, on_bad: Callable[[str], None]) -> Iterator[PlannedStructure]:
    try:
        yield _planned(atoms, file, number)
    except InputError as error:
        on_bad(f"{file}, structure {number}: {error}")


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
