"""A campaign in a folder that outlives its database: specification, force fields, structures and results.

    manifest.json           specification, force fields, versions, sha256 of the other two files
    structures.jsonl.gz     every input structure at full precision, one a line
    members.jsonl.gz        every member with its keys, its state and its principal number, one a line

Equal databases give equal structures and members, byte for byte.
"""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ase import Atoms
from pydantic import Field, ValidationError

from esen_flows.campaigns.frozen_lines import FrozenMember, FrozenStructure, read_lines
from esen_flows.errors import InputError
from esen_flows.files import read_at_most, sha256_of_file
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.schemas.frozen import Closed
from esen_flows.schemas.keys import atoms_key
from esen_flows.store.database import Row

FORMAT_VERSION = 1
_MOST_BYTES = 50_000_000  # of a manifest
MANIFEST, STRUCTURES, MEMBERS = "manifest.json", "structures.jsonl.gz", "members.jsonl.gz"
MEMBER_FIELDS = tuple(FrozenMember.model_fields)  # of a member's row: they do not depend on who computed it and when


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
    count: int = Field(ge=0)


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
        content: dict[str, Any] = json.loads(read_at_most(path, _MOST_BYTES))
        found = content.get("format_version")
    except (ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
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
    if sum(manifest.states.values()) != manifest.members.count or manifest.members.count == 0:
        raise InputError(
            f"{path} is damaged: it names {manifest.members.count} members, but the states of "
            f"{sum(manifest.states.values())}; restore it from its source"
        )
    for name, file in ((STRUCTURES, manifest.structures), (MEMBERS, manifest.members)):
        if file.file != name:
            raise InputError(f"{path} is damaged: it names {file.file} for {name}; restore it from its source")
        _check_file(folder / file.file, file.sha256)
    return manifest


def check_lines(folder: Path, manifest: Manifest) -> None:
    """Read all lines of a frozen campaign once, before anything is made of them.

    Parameters
    ----------
    folder
        Folder of the manifest.
    manifest
        The manifest.

    Raises
    ------
    InputError
        A line is damaged, occurs twice, or names a structure or a force field that is not there, or the states of the
        members are not those that the manifest counts.
    """
    structures: set[str] = set()
    for atoms, _ in frozen_structures(folder, manifest):
        structures.add(atoms_key(atoms))
    models = {model.key for model in manifest.models}
    subjects = models if manifest.spec.of_models else structures
    keys: set[str] = set()
    states: Counter[str] = Counter()
    for row in frozen_members(folder, manifest):
        name = f"{manifest.members.file}: {row['label']} ({row['formula']})"
        if row["key"] in keys or row["key"] != row["steps"][-1]:
            raise InputError(f"{name} is there twice, or does not have the key of its last step; restore the file")
        if row["structure_key"] not in subjects or row["model_key"] not in models:
            raise InputError(f"{name} names a structure or a force field that is not in the manifest; restore the file")
        keys.add(row["key"])
        states[row["state"]] += 1
    if len(structures) != manifest.structures.count:
        raise InputError(f"{manifest.structures.file} holds a structure twice; restore it from its source")
    if states != Counter(manifest.states):
        raise InputError(
            f"{manifest.members.file} has {dict(states)}, the manifest names {manifest.states}; restore both files"
        )


def frozen_members(folder: Path, manifest: Manifest) -> Iterator[Row]:
    """The members of a manifest, as they were frozen.

    Parameters
    ----------
    folder
        Folder of the manifest.
    manifest
        The manifest.

    Yields
    ------
    Row
        The fields `MEMBER_FIELDS` of a member.

    Raises
    ------
    InputError
        The file is damaged, or has another number of members than the manifest names.
    """
    for line in read_lines(folder / manifest.members.file, manifest.members.count, FrozenMember):
        yield line.model_dump()


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
        The file is damaged, or the key of a structure is not that of its numbers.
    """
    path = folder / manifest.structures.file
    for number, line in enumerate(read_lines(path, manifest.structures.count, FrozenStructure), start=1):
        try:
            atoms = line.atoms()
        except ValueError as error:
            raise InputError(f"{manifest.structures.file}: line {number} {error}") from None
        yield atoms, {"material_ids": line.material_ids}


def _check_file(path: Path, expected: str) -> None:
    if not path.is_file():
        raise InputError(f"{path} is missing; it belongs to the manifest beside it")
    found = sha256_of_file(path)
    if found != expected:
        raise InputError(
            f"{path} is damaged or was changed: its sha256 is {found[:16]}..., the manifest names {expected[:16]}...; "
            "restore it from its source"
        )
