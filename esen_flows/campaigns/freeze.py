"""Freezing of a campaign: its manifest, structures and members are written into a folder."""

import gzip
import json
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from esen_flows.campaigns.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    MEMBER_FIELDS,
    MEMBERS,
    STRUCTURES,
    DataFile,
    FrozenModel,
    Manifest,
)
from esen_flows.campaigns.records import MemberRecord, Origins, member_rows, records, refreshed_campaign
from esen_flows.errors import InputError, ModelError
from esen_flows.files import sha256_of_file, written_whole
from esen_flows.schemas.atom_properties import properties_of
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.schemas.card import checkpoint_path, resolve_model
from esen_flows.schemas.lattice_versions import lattice_versions
from esen_flows.schemas.property_lookup import entry_of, named_protocol
from esen_flows.schemas.provenance import git_revision
from esen_flows.schemas.requests import property_requests
from esen_flows.store.campaign_progress import counts
from esen_flows.store.database import Row
from esen_flows.store.queries.query import fetch, read_structure
from esen_flows.store.results import Store
from esen_flows.version import __version__


def freeze(
    store: Store, name: str, folder: Path, *, partial: bool = False, on_member: Callable[[], None] | None = None
) -> Manifest:
    """Write a campaign into a folder.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    folder
        Folder, new or empty. The manifest appears in it when everything else is there.
    partial
        Whether members may be pending.
    on_member
        Called for each member.

    Returns
    -------
    Manifest
        The manifest.

    Raises
    ------
    InputError
        Members are pending, the folder has a manifest, or a force field is not on this machine.
    """
    campaign, spec = refreshed_campaign(store, name)
    states: Counter[str] = Counter()
    for row in counts(store, name):
        states[row["state"]] += row["members"]
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
    members = _write(folder / MEMBERS, _member_lines(records(store, name, on_member), origins))
    manifest = _manifest(
        spec,
        spec_text=campaign["spec_text"],
        models=models,
        states=dict(sorted(states.items())),
        versions=origins.sorted_versions(),
        device_seconds={device: round(seconds, 3) for device, seconds in sorted(origins.seconds.items())},
        structures=_write(folder / STRUCTURES, _structure_lines(store, name)),
        members=members,
    )
    with written_whole(folder / MANIFEST) as temporary:
        temporary.write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return manifest


def _manifest(spec: CampaignSpec, **found: Any) -> Manifest:
    """Manifest of what was found, with the versions of this installation and those that the keys depend on."""
    # Steps are the same for all structures, whose own supercells do not matter here.
    protocol = named_protocol(spec.property, spec.protocol, {})
    steps = property_requests("", "", protocol, spec.numeric)
    return Manifest(
        format_version=FORMAT_VERSION,
        campaign=spec.name,
        created_at=datetime.now(UTC).replace(microsecond=0),
        package_version=__version__,
        git_revision=git_revision(),
        python=platform.python_version(),
        spec=spec,
        spec_sha256=spec.sha256,
        numerics_revisions={step.kind: step.numerics_revision for step in steps},
        lattice_versions=lattice_versions(spec.lattice_backend) if entry_of(spec.property).versions else {},
        lock=_installed(),
        **found,
    )


def _installed() -> tuple[str, ...]:
    """All installed distributions as name==version, sorted, as in a lock file."""
    found = {f"{each.metadata['Name']}=={each.version}" for each in distributions() if each.metadata["Name"]}
    return tuple(sorted(found, key=str.lower))


def _frozen_model(model: Mapping[str, Any]) -> FrozenModel:
    """A force field of the campaign with its file or package.

    Raises
    ------
    ModelError
        It is not on this machine, or it is no longer the one that computed.
    """
    known = {name: model[name] for name in ("label", "key", "location", "cutoff_angstrom")}
    found = resolve_model(model["location"])
    if found.key != model["key"]:
        raise ModelError(
            f"{model['location']} is no longer the force field of this campaign: its key is {found.key[:16]}... "
            f"instead of {model['key'][:16]}...; to freeze, put back the file or package that computed the results"
        )
    if found.card is not None and not found.card.is_network:
        assert found.card.package is not None  # the card's validator sees to it
        recipe = found.card.calculator
        installed = version(found.card.package) if recipe is None else recipe.version
        return FrozenModel(**known, package=found.card.package, version=installed)
    path = Path(found.location) if found.card is None else checkpoint_path(found.card)
    return FrozenModel(**known, file=path.name, sha256=sha256_of_file(path))


def _member_lines(found: Iterable[MemberRecord], origins: Origins) -> Iterator[Row]:
    """Lines of members, whose results are counted on the way."""
    for record in found:
        origins.add(record)
        yield {field: record.member[field] for field in MEMBER_FIELDS}


def _structure_lines(store: Store, name: str) -> Iterator[Row]:
    keys = sorted({row["structure_key"] for row in member_rows(store, name)})
    for row in fetch(store, "structures", keys, {}):
        found = read_structure(row)
        atoms = found.atoms
        yield {
            "key": found.key,
            "formula": found.fields["formula"],
            "material_ids": sorted(found.fields.get("material_ids", ())),
            "numbers": atoms.numbers.tolist(),
            "positions": atoms.positions.tolist(),
            "cell": atoms.cell.array.tolist(),
            "pbc": atoms.pbc.tolist(),
            "charge": float(atoms.info.get("charge", 0.0)),
            "spin": float(atoms.info.get("spin", 0.0)),
            **properties_of(atoms).lists(),
        }


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> DataFile:
    count = 0
    # No name and no time in the header of gzip, so that equal lines give equal files.
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as out:
        for row in rows:
            out.write((json.dumps(row, separators=(",", ":")) + "\n").encode())
            count += 1
    return DataFile.model_validate({"file": path.name, "sha256": sha256_of_file(path), "count": count})
