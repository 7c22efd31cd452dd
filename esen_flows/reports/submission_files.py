"""What the files of submissions to the leaderboard say of each material, read without a database."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from ase import Atoms

from esen_flows.campaigns.manifest import MANIFEST, Manifest, frozen_members, read_manifest
from esen_flows.campaigns.sources import ReferenceNotHereError, reference_file
from esen_flows.errors import InputError
from esen_flows.metrics.artefact_rows import read_relaxations, read_symmetries
from esen_flows.metrics.artefact_scores import TASKS
from esen_flows.metrics.artefacts import dated_files, read_conductivity_rows, read_formation_energies
from esen_flows.metrics.conductivity import ModeConductivity, conductivity_errors, read_reference_conductivities
from esen_flows.metrics.discovery import predicted_hull_distances, read_discovery_reference
from esen_flows.reports.members import Member
from esen_flows.yaml_files import read_yaml

SYMPREC = "1e-2"


@dataclass
class Submission:
    """A submission, or a frozen campaign, as its folder has it.

    Attributes
    ----------
    name
        Name of its folder.
    folder
        Its folder.
    files
        File of each task, by the keys of `metrics.artefact_scores.TASKS`.
    card
        Its card; empty if there is none.
    manifest
        Manifest of the frozen campaign that it was made from; None if there is none.
    members
        Values of each material, with the names of a campaign's members.
    conductivities
        Conductivity by modes of each material that has one.
    remarks
        What could not be shown, and why.
    """

    name: str
    folder: Path
    files: dict[str, Path] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    manifest: Manifest | None = None
    members: dict[str, Member] = field(default_factory=dict)
    conductivities: dict[str, ModeConductivity] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def _folders(folder: Path) -> list[Path]:
    found = {path.parent for ending in TASKS.values() for path in folder.rglob(f"????-??-??-{ending}")}
    manifests = {path.parent for path in folder.rglob(MANIFEST)}
    # A frozen campaign below a submission belongs to it.
    return sorted(found or manifests)


def read_submissions(folder: Path) -> list[Submission]:
    """Submissions in a folder or below it.

    Parameters
    ----------
    folder
        The folder.

    Returns
    -------
    list[Submission]
        Submissions with the values of all materials.

    Raises
    ------
    InputError
        There is none, or a file cannot be read.
    """
    found = [_read(place) for place in _folders(folder)]
    if not found:
        names = ", ".join(f"YYYY-MM-DD-{ending}" for ending in TASKS.values())
        raise InputError(f"{folder} has no file of a submission ({names}) and no frozen campaign ({MANIFEST})")
    return found


def _read(folder: Path) -> Submission:
    files = dated_files(folder, TASKS)
    found = Submission(folder.resolve().name, folder, files, _card(folder))
    manifests = [folder / MANIFEST, *sorted(folder.glob(f"*/{MANIFEST}"))]
    place = next((path.parent for path in manifests if path.is_file()), None)
    if place is not None:
        found.manifest = read_manifest(place)
        for row in frozen_members(place, found.manifest):
            _member(found, row["label"]).update(
                formula=row["formula"], nsites=row["nsites"], state=row["state"], failure=row["failure"] or "",
                frozen_value=row["value"], short_key=row["key"][:12],
            )  # fmt: skip
    if "geometry" in files:
        _add_relaxations(found, files["geometry"])
    if "discovery" in files:
        _add_energies(found, files["discovery"])
    if "conductivity" in files:
        _add_conductivities(found, files["conductivity"])
    return found


def _card(folder: Path) -> Mapping[str, Any]:
    """The card in the folder of a submission or beside it; empty if there is none."""
    own = folder.resolve()
    paths = [*sorted(folder.glob("*.yml")), own.with_name(f"{own.name}.yml")]
    for path in paths:
        if path.is_file():
            content = read_yaml(path)
            if isinstance(content, Mapping) and "model_key" in content:
                return content
    return {}


def _member(found: Submission, material: str) -> Member:
    empty: Member = {"label": material, "model": found.name, "formula": "", "state": "absent", "failure": ""}
    return found.members.setdefault(material, empty)


def _add_relaxations(found: Submission, path: Path) -> None:
    for row in read_relaxations(path):
        member = _member(found, row["material"])
        member |= {name: row[name] for name in ("converged", "n_steps", "energy_ev_per_atom")}
        member["nsites"] = len(row["elements"])
        member["formula"] = member["formula"] or Atoms(row["elements"]).get_chemical_formula("metal")
        if member["state"] == "absent":
            member["state"] = "finished"
    tables = sorted(path.parent.glob(f"????-??-??-geo-opt-symprec={SYMPREC}-moyo=*.csv.gz"))
    if tables:
        for material, values in read_symmetries(tables[-1]).items():
            _member(found, material).update(values)


def _add_energies(found: Submission, path: Path) -> None:
    energies = read_formation_energies(path)
    for material, energy in energies.items():
        member = _member(found, material)
        member["e_form_ev_per_atom"] = energy
        if member["state"] == "absent":
            member["state"] = "finished"
    try:
        reference = read_discovery_reference(reference_file("wbm-summary", None))
    except ReferenceNotHereError as error:
        found.remarks.append(f"Not compared with DFT's energies: {error}.")
        return
    distances = predicted_hull_distances(reference, energies).tolist()
    dft = zip(reference.e_form_ev_per_atom.tolist(), reference.e_above_hull_ev_per_atom.tolist(), strict=True)
    for material, own, (energy, true) in zip(reference.material_ids.tolist(), distances, dft, strict=True):
        if material in energies:
            found.members[material] |= {
                "reference_e_form_ev_per_atom": energy,
                "e_above_hull_ev_per_atom": _known(own),
                "reference_e_above_hull_ev_per_atom": _known(true),
            }


def _add_conductivities(found: Submission, path: Path) -> None:
    try:
        reference = read_reference_conductivities(reference_file("phonondb-103-kappa", None))
    except ReferenceNotHereError as error:
        found.remarks.append(f"Not compared with DFT's conductivities: {error}.")
        reference = {}
    for material, conductivity, facts in read_conductivity_rows(path):
        member, errors = _member(found, material), [str(error) for error in facts.get("errors") or ()]
        member["formula"] = member["formula"] or str(facts.get("formula") or "")
        if conductivity.kappa_w_per_m_k is not None:
            member["state"], member["kappa_w_per_m_k"] = "finished", conductivity.kappa_w_per_m_k
            found.conductivities[material] = conductivity
        elif errors and errors[0] in ("absent", "pending"):
            member["state"] = errors[0]
        else:
            member["state"], member["failure"] = "failed", member["failure"] or (errors or ["no conductivity"])[0]
        member["n_steps"] = facts.get("n_steps")
        dft = reference.get(material)
        if dft is not None:
            member["reference_w_per_m_k"] = dft.kappa_w_per_m_k
            if member["state"] in ("finished", "failed"):
                member["srme"] = conductivity_errors(conductivity, dft).srme


def _known(value: float) -> float | None:
    return value if isfinite(value) else None
