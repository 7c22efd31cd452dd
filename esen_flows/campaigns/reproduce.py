"""A frozen campaign computed anew from its folder alone, on the database and the machine that are here."""

import platform
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from esen_flows.campaigns.manifest import (
    FrozenModel,
    Manifest,
    check_lines,
    frozen_members,
    frozen_structures,
    read_manifest,
)
from esen_flows.campaigns.member_differences import PENDING, Difference, Side, Tolerance, compare_members
from esen_flows.campaigns.plan import campaign_document
from esen_flows.campaigns.records import member_rows
from esen_flows.errors import InputError, ModelError
from esen_flows.schemas.campaign import CampaignSpec, answer_summary_field, member_keys
from esen_flows.schemas.card import ModelReference, resolve_model
from esen_flows.schemas.lattice_versions import lattice_versions
from esen_flows.schemas.property_lookup import entry_of
from esen_flows.schemas.provenance import library_versions
from esen_flows.store.bulk import batches, put_structures
from esen_flows.store.campaign_progress import refresh_states
from esen_flows.store.campaigns import (
    campaign_of,
    create_campaign,
    exclusive_lock,
    insert_members,
    members,
    members_of,
    set_campaign_state,
)
from esen_flows.store.database import Row
from esen_flows.store.results import Store
from esen_flows.version import __version__

# Members that are computed here together. They are cut in the order of their keys, which are random, so that sizes are
# mixed and a restart after a crash cuts them the same way: deaths are noted by the chunk.
SLICE = 200


@dataclass(frozen=True)
class Reproduction:
    """A frozen campaign that is planned here.

    Attributes
    ----------
    name
        Name of the campaign here.
    folder
        Folder of the manifest.
    manifest
        Manifest of the frozen campaign.
    remarks
        Versions that are different here, a sentence each.
    other_keys
        Whether results have other keys here, because phonopy or phono3py has another minor version.
    """

    name: str
    folder: Path
    manifest: Manifest
    remarks: tuple[str, ...]
    other_keys: bool


def plan_reproduction(store: Store, folder: Path, name: str | None = None) -> Reproduction:
    """Store the structures and the campaign of a manifest; everything is checked before anything is written.

    Parameters
    ----------
    store
        Store that gets the campaign.
    folder
        Folder of the manifest.
    name
        Name of the campaign here; None: that of the manifest.

    Returns
    -------
    Reproduction
        The planned campaign.

    Raises
    ------
    InputError
        The manifest is damaged, the name is malformed, or another campaign has that name.
    ModelError
        A force field is not on this machine, or is another one.
    """
    manifest = read_manifest(folder)
    spec = manifest.spec if name is None else _renamed(manifest.spec, name)
    models: list[Row] = [
        frozen.model_dump(include={"label", "key", "cutoff_angstrom"})
        | {"location": _model_here(frozen, folder).location}
        for frozen in manifest.models
    ]
    _check_revisions(manifest)
    check_lines(folder, manifest)
    other_keys = _check_keys(manifest, spec, folder)
    create_campaign(store, campaign_document(spec, manifest.spec_text, models))
    found = frozen_structures(folder, manifest)
    put_structures(store, ((atoms, {**names, "tags": spec.all_tags}) for atoms, names in found))
    for rows in batches(_members(manifest, spec, folder)):
        insert_members(store, spec.name, rows)
    refresh_states(store, spec.name, answer_summary_field(spec))
    if campaign_of(store, spec.name)["state"] == "planning":
        set_campaign_state(store, spec.name, "planned")
    return Reproduction(spec.name, folder, manifest, differences_here(manifest), other_keys)


def compute_here(store: Store, name: str, on_progress: Callable[[int], None] | None = None) -> None:
    """Compute the pending members of a campaign in this process; if it is interrupted, finished members stay.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    on_progress
        Called with the number of members that are done so far.

    Raises
    ------
    InputError
        The campaign is paused or cancelled.
    ClaimedElsewhereError
        Another process does the same with this campaign.
    """
    from esen_flows.makers.chunks import chunk_job, stages_of
    from esen_flows.makers.force_fields import keeping_force_field
    from esen_flows.progress import listening

    campaign = campaign_of(store, name)
    if campaign["state"] in ("paused", "cancelled"):
        raise InputError(f"the campaign {name!r} is {campaign['state']}; first: esen-flows campaign resume {name}")
    done = 0

    def listen(kind: str, finished: int, total: int | None, words: str) -> None:
        if kind == "campaign" and on_progress is not None:
            on_progress(done + finished)

    # If a second process began with a chunk, the first one would be taken for dead.
    complaint = f"another process is computing the campaign {name!r} with --here; wait for it, or start workers instead"
    with exclusive_lock(store, f"campaign {name} here", complaint), keeping_force_field():
        for chunk, keys in _slices(store, name):
            for stage in stages_of(campaign["spec"]["property"]):
                if any(row["state"] == "pending" for row in members_of(store, name, keys)):
                    with listening(listen):
                        chunk_job(name, chunk, stage, keys)
            done += sum(row["state"] != "pending" for row in members_of(store, name, keys))
            if on_progress is not None:
                on_progress(done)


def compare_with_frozen(store: Store, reproduction: Reproduction, most: int = 10) -> Difference:
    """What differs between the members here and the frozen ones, without those that were frozen pending.

    Parameters
    ----------
    store
        Store of the campaign here.
    reproduction
        The campaign here.
    most
        Number of the largest moves to list.

    Returns
    -------
    Difference
        Members that differ by more than `tolerance_of` the manifest.
    """
    manifest = reproduction.manifest
    frozen = [Side.of(row, with_model=True) for row in frozen_members(reproduction.folder, manifest)]
    pending = {side.identity for side in frozen if side.outcome == PENDING}
    here = (Side.of(row, with_model=True) for row in member_rows(store, reproduction.name))
    return compare_members(
        (side for side in frozen if side.outcome != PENDING),
        (side for side in here if side.identity not in pending),
        tolerance_of(manifest)[0],
        most,
    )


def tolerance_of(manifest: Manifest) -> tuple[Tolerance, str]:
    """How far the numbers of a campaign may be from the frozen ones.

    Parameters
    ----------
    manifest
        Manifest of the frozen campaign.

    Returns
    -------
    tuple[Tolerance, str]
        The tolerance, and the reason why numbers differ.
    """
    deviation = entry_of(manifest.spec.property).reproduction[manifest.spec.dtype]
    return Tolerance(deviation.absolute, deviation.relative), deviation.reason


def differences_here(manifest: Manifest) -> tuple[str, ...]:
    """Packages of which another version is installed here than the frozen results were computed with.

    Parameters
    ----------
    manifest
        Manifest of the frozen campaign.

    Returns
    -------
    tuple[str, ...]
        A sentence for each package.
    """
    here = {"esen_flows": __version__, "python": platform.python_version(), **library_versions()}
    remarks = []
    for name, counted in manifest.versions.items():
        found = here.get(name, "not installed")
        if name != "git revision" and found not in counted:
            remarks.append(f"{name}: frozen results are of {', '.join(counted)}, here is {found}")
    return tuple(remarks)


def _renamed(spec: CampaignSpec, name: str) -> CampaignSpec:
    try:
        return CampaignSpec.model_validate({**spec.model_dump(), "name": name})
    except ValidationError:
        raise InputError(
            f"a campaign cannot be called {name!r}: 1 to 63 letters, digits, _ . and -, a letter or digit first"
        ) from None


def _model_here(frozen: FrozenModel, folder: Path) -> ModelReference:
    """A force field of the manifest: its file in the folder of the manifest, or as it was named.

    Raises
    ------
    ModelError
        It is not on this machine, or is another one.
    """
    beside = None if frozen.file is None else folder / frozen.file
    try:
        found = resolve_model(str(beside) if beside is not None and beside.is_file() else frozen.location)
    except ModelError as error:
        hint = "" if frozen.file is None else f"; or put {frozen.file} (sha256 {frozen.sha256}) into {folder}"
        raise ModelError(f"the force field {frozen.label!r} of the manifest is not here: {error}{hint}") from None
    if found.key != frozen.key:
        raise ModelError(
            f"{found.location} is another force field than the manifest's {frozen.label!r}: its key is "
            f"{found.key[:16]}..., that of the manifest {frozen.key[:16]}...; {_remedy(frozen, folder)}"
        )
    return found


def _remedy(frozen: FrozenModel, folder: Path) -> str:
    if frozen.package is not None:
        return f"the results are of {frozen.package} {frozen.version}: pip install {frozen.package}=={frozen.version}"
    return f"put {frozen.file} with sha256 {frozen.sha256} into {folder}"


def _check_revisions(manifest: Manifest) -> None:
    """Refuse steps whose numbers this version of the package has changed on purpose.

    Raises
    ------
    InputError
        There is such a step; the message names the version to install.
    """
    for kind, revision in manifest.numerics_revisions.items():
        found = entry_of(kind).numerics_revision
        if found != revision:
            raise InputError(
                f"this version of esen_flows ({__version__}) computes {kind} with numerics revision {found}, the "
                f"manifest with {revision}; to reproduce it: pip install esen_flows=={manifest.package_version}"
            )


def _check_keys(manifest: Manifest, spec: CampaignSpec, folder: Path) -> bool:
    """Whether the answers have other keys here, which only minor versions of phonopy and phono3py may cause.

    Raises
    ------
    InputError
        Keys differ for another reason.
    """
    derived = bool(manifest.lattice_versions) and manifest.lattice_versions != lattice_versions(spec.lattice_backend)
    others = False
    for row in frozen_members(folder, manifest):
        planned = list(member_keys(spec, row["structure_key"], row["model_key"], row["info"]))
        if planned == row["steps"]:
            continue
        if not derived or planned[:-1] != row["steps"][:-1]:
            raise InputError(
                f"{row['label']} ({row['formula']}) has the key {planned[-1][:16]}... here and {row['key'][:16]}... in "
                f"the manifest: this version of esen_flows ({__version__}) computes something else; to reproduce it: "
                f"pip install esen_flows=={manifest.package_version}"
            )
        others = True
    return others


def _members(manifest: Manifest, spec: CampaignSpec, folder: Path) -> Iterator[Row]:
    """The members, with their keys here."""
    wanted = ("label", "structure_key", "model_key", "model_label", "formula", "nsites", "info", "cost")
    for row in frozen_members(folder, manifest):
        steps = member_keys(spec, row["structure_key"], row["model_key"], row["info"])
        yield {"key": steps[-1], "steps": list(steps), **{name: row[name] for name in wanted}}


def _slices(store: Store, name: str) -> Iterator[tuple[str, list[str]]]:
    """Names of chunks and keys of their members, of one force field each."""
    by_model: defaultdict[str, list[str]] = defaultdict(list)
    for row in members(store, name, fields=("key", "model_key")):
        by_model[row["model_key"]].append(row["key"])
    for model_key, keys in sorted(by_model.items()):
        for number, part in enumerate(batches(sorted(keys), SLICE)):
            yield f"here-{model_key[:8]}-{number * SLICE}", part
