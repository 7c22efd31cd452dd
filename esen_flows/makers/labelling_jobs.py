"""The body of the labelling job: structures and a force field in, a stored dataset out; see `jobs`."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ase import Atoms
from ase.data import chemical_symbols

from esen_flows import progress
from esen_flows.errors import FolderInUseError, InputError, StoreError
from esen_flows.makers.compute import Meter, Summary, compute_once
from esen_flows.makers.force_fields import requested_force_field
from esen_flows.makers.step_inputs import Json, Reference, context_of, protocol_of, reference_to
from esen_flows.makers.summaries import labelling_summary
from esen_flows.schemas.keys import atoms_key, sha256_of
from esen_flows.schemas.requests import ResultRequest
from esen_flows.schemas.training import LabellingOutput, LabellingProtocol
from esen_flows.settings import get_settings
from esen_flows.store.connection import open_store
from esen_flows.store.datasets import fits_database, store_dataset
from esen_flows.store.results import Store
from esen_flows.structures.conversion import atoms_from_json, atoms_to_json
from esen_flows.structures.identity import identify_dataset
from esen_flows.structures.inputs import AnyStructures, as_structures

if TYPE_CHECKING:
    from pathlib import Path

    from esen_flows.data.dataset import Dataset
    from esen_flows.forcefield.contract import ForceField

# A damaged or busy folder of this machine says nothing about the data, and an input that cannot be used is found again
# at once.
NOT_STORED = (InputError, StoreError, FolderInUseError)
# A job's arguments travel in a MongoDB document of at most 16 MB.
MOST_JOB_BYTES = 8_000_000


def labelling_job(structures: Json, request: Json, model: Json, dataset_name: str) -> Reference:
    """Label structures into a stored dataset.

    Parameters
    ----------
    structures
        {"recipe": content of a recipe file} or {"structures": [`atoms_to_json`, "group" and "material"]}.
    request
        `ResultRequest.model_dump(mode="json")`.
    model
        The labeller: location, label, device, material ids and tags, and the licence of its labels.
    dataset_name
        Name of the dataset for people.

    Returns
    -------
    Reference
        kind, key and summary of the result; `summary["dataset_key"]` is the dataset's key.
    """
    requested, store = ResultRequest.model_validate(request), open_store()
    # The same folder for every process of this machine that resumes the labelling.
    folder = get_settings().data_dir / "labelling" / requested.key
    identity = identify_dataset(())  # filled in when the structures are made

    def compute(meter: Meter) -> tuple[LabellingOutput, Summary]:
        force_field = meter.watch(requested_force_field(model, requested))
        atoms = _structures(structures, force_field, folder)
        elements = {chemical_symbols[int(z)] for each in atoms for z in each.numbers}
        identity.update(identify_dataset(sorted(elements)))
        average = protocol_of(requested, LabellingProtocol).average_inversion
        dataset = _labelled(atoms, force_field, average, folder, structures.get("recipe"), model["licence"])
        output = LabellingOutput(
            dataset_key=_store(store, dataset, dataset_name),
            dataset_name=dataset_name,
            count=len(dataset),
            atoms=int(dataset.n_atoms.sum()),
        )
        return output, labelling_summary(output)

    document = compute_once(store, requested, context_of(identity, model), compute, not_stored=NOT_STORED)
    shutil.rmtree(folder, ignore_errors=True)
    return reference_to(document)


def carried_structures(structures: Mapping[str, Any] | AnyStructures) -> Json:
    """The argument `structures` of a labelling job.

    Parameters
    ----------
    structures
        Content of a recipe file, or structures, whose `info` may have a group and a material.

    Returns
    -------
    Json
        The recipe or the structures.

    Raises
    ------
    InputError
        There are no structures, or more than a job can carry.
    """
    if isinstance(structures, Mapping):
        return {"recipe": dict(structures)}
    items = []
    for atoms in as_structures(structures):
        names = {name: str(atoms.info.get(name, "")) for name in ("group", "material")}
        items.append({**atoms_to_json(atoms), **names})
    if not items:
        raise InputError("no structures to label; give a recipe or a list of structures")
    size = len(json.dumps(items))
    if size > MOST_JOB_BYTES:
        raise InputError(
            f"{len(items)} structures take {size / 1e6:.0f} MB, more than a job carries; give a recipe that makes "
            "them, or label them with `esen-flows label` and store the dataset"
        )
    return {"structures": items}


def structures_key(structures: Mapping[str, Any]) -> str:
    """The key of the structures of a labelling.

    Parameters
    ----------
    structures
        The argument of a labelling job.

    Returns
    -------
    str
        sha256 of a recipe's content, or of the structures' keys, groups and materials.
    """
    if "recipe" in structures:
        return sha256_of({"recipe": structures["recipe"]})
    named = [[atoms_key(atoms_from_json(c)), c["group"], c["material"]] for c in structures["structures"]]
    return sha256_of({"structures": named})


def _structures(structures: Mapping[str, Any], force_field: "ForceField", folder: "Path") -> list[Atoms]:
    """Structures to label. The labeller runs the molecular dynamics that a recipe asks for."""
    from esen_flows.data.generate import generate
    from esen_flows.data.recipes import recipe_from_dict
    from esen_flows.physics.crystals import with_relaxed_crystals
    from esen_flows.training.snapshots import langevin

    if "recipe" in structures:
        recipe = with_relaxed_crystals(recipe_from_dict(structures["recipe"]), force_field, folder / "crystals.json")
        return generate(recipe, dynamics=langevin(force_field, folder / "dynamics"))
    made = []
    for content in structures["structures"]:
        atoms = atoms_from_json(content)
        atoms.info |= {"group": content["group"], "material": content["material"]}
        made.append(atoms)
    return made


def _labelled(
    atoms: list[Atoms],
    force_field: "ForceField",
    average_inversion: bool,
    folder: "Path",
    recipe: Mapping[str, Any] | None,
    licence: str,
) -> "Dataset":
    """The structures with their labels; an interrupted labelling of this machine goes on."""
    from esen_flows.data.dataset import from_structures
    from esen_flows.data.extxyz import read_provenance
    from esen_flows.data.screening import Rejected
    from esen_flows.data.sources.read import read_source
    from esen_flows.training.label import label

    path = label(
        atoms,
        force_field,
        folder / "labels.xyz",
        average_inversion=average_inversion,
        progress=lambda done, total: progress.report("labelling", done, total, f"{done} of {total}"),
        recipe_hash="" if recipe is None else sha256_of(recipe),
        licence=licence,
    )
    # The file keeps groups, but no materials; its order is that of the structures.
    pairs = zip(Rejected("fail").keep(read_source(path)), atoms, strict=True)
    items = [replace(item, material=str(source.info.get("material", ""))) for item, source in pairs]
    return from_structures(items, read_provenance(path))


def _store(store: Store, dataset: "Dataset", name: str) -> str:
    """Store a dataset and return its key; a large one is stored as a folder of its own."""
    from esen_flows.data.folders import write_dataset

    folder = None
    if not fits_database(dataset):
        folder = get_settings().data_dir / "datasets" / dataset.key
        if not folder.is_dir():
            write_dataset(folder, dataset, provenance=dataset.provenance)
    return store_dataset(store, dataset, name, folder=folder)
