"""A campaign in a folder that outlives its database: what was asked, of what, by what, and what came out.

    manifest.json           specification, force fields, versions, sha256 of the other two
    structures.jsonl.gz     every input structure at full precision, one a line
    members.jsonl.gz        every member, with its keys, its state and its principal number, one a line

Equal databases give equal structures and members, byte for byte.
"""

import gzip
import hashlib
import json
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any, Literal

from ase import Atoms
from pydantic import BaseModel, ConfigDict, ValidationError

from esen_flows.version import __version__
from esen_flows.campaigns.records import Origins, member_rows, records
from esen_flows.errors import InputError, ModelError
from esen_flows.schemas.campaign import CampaignSpec, answer_summary_field
from esen_flows.schemas.card import checkpoint_path, resolve_model
from esen_flows.schemas.keys import atoms_key
from esen_flows.schemas.lattice_versions import lattice_versions
from esen_flows.schemas.provenance import git_revision
from esen_flows.schemas.requests import NUMERICS_REVISION
from esen_flows.store.campaigns import campaign_of, counts, refresh_states
from esen_flows.store.database import Row
from esen_flows.store.queries.query import StructureRecord, fetch, read_structure
from esen_flows.store.results import Store

FORMAT_VERSION = 1
MANIFEST, STRUCTURES, MEMBERS = "manifest.json", "structures.jsonl.gz", "members.jsonl.gz"
# Of a member's row, what does not depend on who computed it and when.
MEMBER_FIELDS = (
    "label", "formula", "nsites", "structure_key", "model_key", "model_label", "info", "cost", "key", "steps", "state",
    "failure", "value",
)  # fmt: skip
KINDS: dict[str, tuple[Literal["relax", "forces", "phonon", "conductivity"], ...]] = {
    "relax": ("relax",),
    "phonon": ("relax", "forces", "phonon"),
    "conductivity": ("relax", "forces", "conductivity"),
}


class Part(BaseModel):
    """A part of a manifest: unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class FrozenModel(Part):
    """A force field, and the file or package that its numbers are in."""

    label: str
    key: str
    location: str  # name of the card, or the path that its checkpoint had
    cutoff_angstrom: float
    file: str | None = None
    sha256: str | None = None
    package: str | None = None
    version: str | None = None


class DataFile(Part):
    """A file beside the manifest."""

    file: Literal["structures.jsonl.gz", "members.jsonl.gz"]
    sha256: str
    count: int


class Manifest(Part):
    """All that a finished campaign was, but for its structures and members."""

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
    lattice_versions: dict[str, str]  # part of the keys of phonons and conductivities
    versions: dict[str, dict[str, int]]  # name, version, how many results have it
    states: dict[str, int]
    device_seconds: dict[str, float]  # what the results took, by device
    structures: DataFile
    members: DataFile
    lock: tuple[str, ...]


def freeze(
    store: Store, name: str, folder: Path, *, partial: bool = False, on_member: Callable[[], None] | None = None
) -> Manifest:
    """Write a campaign into a folder.

    Parameters
    ----------
    folder
        new or empty; the manifest appears when all else is there.
    partial
        also if members are pending.
    on_member
        called for each member.

    Raises
    ------
    InputError
        pending members, a folder with a manifest, a force field that is not here.
    """
    campaign = campaign_of(store, name)
    spec = CampaignSpec.model_validate(campaign["spec"])
    refresh_states(store, name, answer_summary_field(spec))
    states = _states(store, name)
    if states["pending"] and not partial:
        raise InputError(
            f"{states['pending']} of {states.total()} members of {name!r} are pending; let workers finish them "
            f"(esen-flows campaign submit {name}, esen-flows worker), or freeze what there is: --partial"
        )
    if (folder / MANIFEST).exists():
        raise InputError(f"{folder} holds a frozen campaign already; give another folder: --output DIR")
    models = [_frozen_model(model) for model in campaign["models"]]
    folder.mkdir(parents=True, exist_ok=True)
    origins = Origins()
    members = _write(folder / MEMBERS, _member_lines(store, name, origins, on_member))
    structures = _write(folder / STRUCTURES, _structure_lines(store, name))
    fields: dict[str, Any] = {"spec": spec, "spec_text": campaign["spec_text"], "spec_sha256": spec.sha256}
    fields |= {"models": models, "states": dict(sorted(states.items())), "structures": structures, "members": members}
    fields |= {"versions": origins.sorted_versions(), "device_seconds": origins.sorted_seconds()}
    manifest = Manifest(**_here(spec), **fields)
    begun = folder / f".{MANIFEST}.partial"
    begun.write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    begun.replace(folder / MANIFEST)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder, after its files were compared with their sha256.

    Raises
    ------
    InputError
        no manifest, one that cannot be read, or a file that is missing or damaged.
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
    """The members of a manifest, as they were frozen (`MEMBER_FIELDS`)."""
    return _lines(folder / manifest.members.file)


def frozen_structures(folder: Path, manifest: Manifest) -> Iterator[tuple[Atoms, dict[str, Any]]]:
    """The input structures of a manifest, each with what it is called, as `put_structures` takes it.

    Raises
    ------
    InputError
        one whose key is not that of its numbers.
    """
    for number, row in enumerate(_lines(folder / manifest.structures.file), start=1):
        info = {name: row[name] for name in ("charge", "spin") if row[name]}
        atoms = Atoms(row["numbers"], positions=row["positions"], cell=row["cell"], pbc=row["pbc"], info=info)
        if atoms_key(atoms) != row["key"]:
            raise InputError(
                f"{manifest.structures.file}: line {number} is structure {atoms_key(atoms)[:16]}..., but says that it "
                f"is {row['key'][:16]}...; it was changed after it was frozen, restore it"
            )
        yield atoms, {"material_ids": row["material_ids"]}


def installed() -> tuple[str, ...]:
    """All installed distributions as name==version, sorted: a lock file."""
    found = {f"{each.metadata['Name']}=={each.version}" for each in distributions() if each.metadata["Name"]}
    return tuple(sorted(found, key=str.lower))


def _here(spec: CampaignSpec) -> dict[str, Any]:
    """What freezes, and what it would compute with."""
    return {
        "format_version": FORMAT_VERSION,
        "campaign": spec.name,
        "created_at": datetime.now(UTC).replace(microsecond=0),
        "package_version": __version__,
        "git_revision": git_revision(),
        "python": platform.python_version(),
        "numerics_revisions": {kind: NUMERICS_REVISION[kind] for kind in KINDS[spec.property]},
        "lattice_versions": {} if spec.property == "relax" else lattice_versions(),
        "lock": installed(),
    }


def _states(store: Store, name: str) -> Counter[str]:
    states: Counter[str] = Counter()
    for row in counts(store, name):
        states[row["state"]] += row["members"]
    return states


def _frozen_model(model: Mapping[str, Any]) -> FrozenModel:
    """A force field of the campaign with its file or package.

    Raises
    ------
    ModelError
        it is not here, or no longer the one that computed.
    """
    known = {name: model[name] for name in ("label", "key", "location", "cutoff_angstrom")}
    found = resolve_model(model["location"])
    if found.key != model["key"]:
        raise ModelError(
            f"{model['location']} is not the force field of this campaign any more: its key is {found.key[:16]}..., "
            f"results are of {model['key'][:16]}...; put the file or package of that time back to freeze"
        )
    if found.card is not None and found.card.family == "third_party":
        assert found.card.package is not None  # the card's own validator
        return FrozenModel(**known, package=found.card.package, version=version(found.card.package))
    path = Path(found.location) if found.card is None else checkpoint_path(found.card)
    return FrozenModel(**known, file=path.name, sha256=_sha256(path))


def _member_lines(store: Store, name: str, origins: Origins, on_member: Callable[[], None] | None) -> Iterator[Row]:
    for record in records(store, name):
        origins.add(record)
        if on_member is not None:
            on_member()
        yield {field: record.member[field] for field in MEMBER_FIELDS}


def _structure_lines(store: Store, name: str) -> Iterator[Row]:
    keys = sorted({row["structure_key"] for row in member_rows(store, name)})
    for row in fetch(store, "structures", keys, {}):
        yield _structure_line(read_structure(row))


def _structure_line(found: StructureRecord) -> Row:
    atoms = found.atoms
    return {
        "key": found.key,
        "formula": found.fields["formula"],
        "material_ids": sorted(found.fields.get("material_ids", ())),
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
        "charge": float(atoms.info.get("charge", 0.0)),
        "spin": float(atoms.info.get("spin", 0.0)),
    }


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> DataFile:
    count = 0
    # Neither name nor time in its header, so that equal lines give equal files.
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as out:
        for row in rows:
            out.write((json.dumps(row, separators=(",", ":")) + "\n").encode())
            count += 1
    return DataFile.model_validate({"file": path.name, "sha256": _sha256(path), "count": count})


def _lines(path: Path) -> Iterator[Row]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def _check_file(path: Path, expected: str) -> None:
    if not path.is_file():
        raise InputError(f"{path} is missing; it belongs to the manifest beside it")
    found = _sha256(path)
    if found != expected:
        raise InputError(
            f"{path} is damaged or was changed: its sha256 is {found[:16]}..., the manifest names {expected[:16]}...; "
            "restore it from its source"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
