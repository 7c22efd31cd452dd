"""A campaign in a folder that outlives its database: specification, force fields, structures and results.

    manifest.json           specification, force fields, versions, sha256 of the other two files
    structures.jsonl.gz     every input structure at full precision, one a line
    members.jsonl.gz        every member with its keys, its state and its principal number, one a line

Equal databases give equal structures and members, byte for byte.
"""

import gzip
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ase import Atoms
from pydantic import ValidationError

from esen_flows.errors import InputError
from esen_flows.files import sha256_of_file
from esen_flows.schemas.atom_properties import AtomProperties
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.schemas.frozen import Closed
from esen_flows.schemas.keys import atoms_key
from esen_flows.store.database import Row

FORMAT_VERSION = 1
MANIFEST, STRUCTURES, MEMBERS = "manifest.json", "structures.jsonl.gz", "members.jsonl.gz"
# Fields of a member's row that do not depend on who computed it and when.
MEMBER_FIELDS = (
    "label", "formula", "nsites", "structure_key", "model_key", "model_label", "info", "cost", "key", "steps", "state",
    "failure", "value",
)  # fmt: skip


class FrozenModel(Closed):
    """A force field, and the file or package that determines its numbers.

    Attributes
    ----------
    label
        Label in the campaign.
    key
        Model key.
    location
        Name of the card, or the path that its checkpoint had.
    cutoff_angstrom
        Cutoff radius in Angstrom.
    file
        Name of its checkpoint file; None for a package.
    sha256
        Sha256 of that file.
    package
        Name of its package; None for a checkpoint.
    version
        Version of that package.
    """

    label: str
    key: str
    location: str
    cutoff_angstrom: float
    file: str | None = None
    sha256: str | None = None
    package: str | None = None
    version: str | None = None


class DataFile(Closed):
    """A file beside the manifest.

    Attributes
    ----------
    file
        Name of the file.
    sha256
        Sha256 of its content.
    count
        Number of its lines.
    """

    file: Literal["structures.jsonl.gz", "members.jsonl.gz"]
    sha256: str
    count: int


class Manifest(Closed):
    """All about a frozen campaign except its structures and members.

    Attributes
    ----------
    format_version
        Version of this format.
    campaign
        Name of the campaign.
    created_at
        When it was frozen.
    package_version
        Version of esen_flows that froze it.
    git_revision
        Git revision of esen_flows; None outside a checkout.
    python
        Version of Python.
    spec
        Specification.
    spec_text
        Text that the specification was read from.
    spec_sha256
        Sha256 of the specification.
    models
        Force fields.
    numerics_revisions
        Numerics revision by kind of step.
    lattice_versions
        Minor versions that are part of the keys of phonons and conductivities.
    versions
        Number of results by package and version.
    states
        Number of members by state.
    device_seconds
        Computing time of the results in seconds, by device.
    structures
        File of the structures.
    members
        File of the members.
    lock
        Installed distributions as name==version.
    """

    format_version: int
    campaign: str
    created_at: datetime
    package_version: str
    git_revision: str | None
    python: str
    spec: CampaignSpec
    spec_text: str
    spec_sha256: str
    models: tuple[FrozenModel, ...]
    numerics_revisions: dict[str, int]
    lattice_versions: dict[str, str]
    versions: dict[str, dict[str, int]]
    states: dict[str, int]
    device_seconds: dict[str, float]
    structures: DataFile
    members: DataFile
    lock: tuple[str, ...]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder, after its files were compared with their sha256.

    Parameters
    ----------
    folder
        Folder of a frozen campaign.

    Returns
    -------
    Manifest
        The manifest.

    Raises
    ------
    InputError
        There is no manifest, it cannot be read, or a file is missing or damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"no frozen campaign: there is no {path}; make one with: esen-flows campaign freeze NAME")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = content.get("format_version")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}); restore it from its source") from None
    if found != FORMAT_VERSION:
        raise InputError(f"{path} has format version {found}, this release reads {FORMAT_VERSION}; upgrade esen_flows")
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise InputError(f"{path} is damaged: {where}: {fault['msg']}; restore it from its source") from None
    if manifest.spec.sha256 != manifest.spec_sha256:
        raise InputError(f"{path} is damaged: its specification is not that of sha256 {manifest.spec_sha256[:16]}...")
    for file in (manifest.structures, manifest.members):
        _check_file(folder / file.file, file.sha256)
    return manifest


def frozen_members(folder: Path, manifest: Manifest) -> Iterator[Row]:
    """The members of a manifest, as they were frozen.

    Parameters
    ----------
    folder
        Folder of the manifest.
    manifest
        The manifest.

    Returns
    -------
    Iterator[Row]
        The fields `MEMBER_FIELDS` of each member.
    """
    return _lines(folder / manifest.members.file)


def frozen_structures(folder: Path, manifest: Manifest) -> Iterator[tuple[Atoms, dict[str, Any]]]:
    """The input structures of a manifest.

    Parameters
    ----------
    folder
        Folder of the manifest.
    manifest
        The manifest.

    Yields
    ------
    tuple[Atoms, dict[str, Any]]
        A structure and its material ids, as `put_structures` takes them.

    Raises
    ------
    InputError
        The key of a structure is not that of its numbers.
    """
    for number, row in enumerate(_lines(folder / manifest.structures.file), start=1):
        info = {name: row[name] for name in ("charge", "spin") if row[name]}
        atoms = Atoms(row["numbers"], positions=row["positions"], cell=row["cell"], pbc=row["pbc"], info=info)
        AtomProperties.of_fields(row).attach(atoms)
        if atoms_key(atoms) != row["key"]:
            raise InputError(
                f"{manifest.structures.file}: line {number} is structure {atoms_key(atoms)[:16]}..., but says that it "
                f"is {row['key'][:16]}...; it was changed after it was frozen, restore it"
            )
        yield atoms, {"material_ids": row["material_ids"]}


def _lines(path: Path) -> Iterator[Row]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def _check_file(path: Path, expected: str) -> None:
    if not path.is_file():
        raise InputError(f"{path} is missing; it belongs to the manifest beside it")
    found = sha256_of_file(path)
    if found != expected:
        raise InputError(
            f"{path} is damaged or was changed: its sha256 is {found[:16]}..., the manifest names {expected[:16]}...; "
            "restore it from its source"
        )
