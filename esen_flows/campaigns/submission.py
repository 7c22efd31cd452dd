"""The files of a submission to Matbench Discovery, from a campaign with a benchmark and what its author says of it."""

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from esen_flows.campaigns.benchmark import benchmark_of, reference_folder
from esen_flows.campaigns.benchmark_conductivity import conductivity_records
from esen_flows.campaigns.benchmark_discovery import discovery_results
from esen_flows.campaigns.benchmark_geometry import dft_structures
from esen_flows.campaigns.benchmark_md import md_rows
from esen_flows.campaigns.freeze import freeze
from esen_flows.campaigns.manifest import MANIFEST, Manifest
from esen_flows.campaigns.records import member_rows, refreshed_campaign
from esen_flows.campaigns.sources import reference_file
from esen_flows.errors import InputError
from esen_flows.files import written_whole
from esen_flows.metrics.artefact_scores import Scores, score_artefacts
from esen_flows.metrics.artefacts import (
    CONDUCTIVITY,
    DISCOVERY,
    GEOMETRY,
    compressed_text,
    write_conductivities,
    write_formation_energies,
    write_structure,
    write_symmetries,
)
from esen_flows.metrics.diatomics_artefact import DIATOMICS, read_run_metadata, write_diatomics
from esen_flows.metrics.leaderboard_card import (
    check_card,
    conductivity_section,
    diatomics_section,
    discovery_section,
    file_reference,
    geometry_section,
    md_section,
    plain_dates,
)
from esen_flows.metrics.md_artefact import MD, write_md_metrics
from esen_flows.schemas.campaign import CampaignSpec, base_protocol
from esen_flows.schemas.card import resolve_model
from esen_flows.schemas.diatomics import DiatomicsOutput
from esen_flows.schemas.model_card import ModelCard
from esen_flows.schemas.protocol_fields import with_values
from esen_flows.store.results import Store
from esen_flows.yaml_files import read_yaml

FROZEN = "frozen"
_OWN_FIELDS = ("family", "hardware")  # of submission.yaml, and not of the card
_N_WBM, _N_PHONONDB, _N_DYNAMAT = 256_963, 103, 17


@dataclass(frozen=True)
class Submission:
    """A submission that was written.

    Attributes
    ----------
    files
        All files.
    metrics
        Metrics that `leaderboard score` gives for them.
    """

    files: tuple[Path, ...]
    metrics: Mapping[str, float | None]


@dataclass(frozen=True)
class _Target:
    """Where the files go, and their date."""

    folder: Path
    family: str
    model_key: str
    day: date

    @property
    def directory(self) -> Path:
        return self.folder / "models" / self.family / self.model_key

    @property
    def card(self) -> Path:
        return self.directory.with_name(f"{self.model_key}.yml")

    def file(self, ending: str) -> Path:
        return self.directory / f"{self.day.isoformat()}-{ending}"

    def reference(self, path: Path) -> dict[str, Any]:
        return file_reference(path, self.folder)


def write_submission(
    store: Store,
    name: str,
    author_file: Path,
    folder: Path,
    *,
    references: Path | None = None,
    day: date | None = None,
    on_member: Callable[[], None] | None = None,
) -> Submission:
    """Write artefacts, run information and model card of a campaign, and compute the card's metrics from the artefacts.

    A second campaign of the same force field, such as one of the other benchmark, adds its tasks to the card.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    author_file
        YAML with the fields of the leaderboard's card that results do not hold: authors, licence, doi and others.
    folder
        Folder to write into.
    references
        Folder to look for DFT's results in first. Default: that of the published structures.
    day
        Date of the files; None: today.
    on_member
        Called for each member.

    Returns
    -------
    Submission
        Files and metrics.

    Raises
    ------
    InputError
        The campaign has no benchmark or several force fields, fields of the card are missing or wrong (all are named),
        or a reference is not there.
    """
    campaign, spec = refreshed_campaign(store, name)
    benchmark = benchmark_of(spec)
    if benchmark not in _TASKS or len(campaign["models"]) != 1:
        raise InputError(
            f"campaign {name} has benchmark {benchmark} and {len(campaign['models'])} force fields; a submission is of "
            f"one force field and of {' or '.join(_TASKS)}"
        )
    given = _given(author_file)
    card = _card(given, campaign["models"][0], spec)
    check_card(card, str(author_file))  # before minutes of work
    key = str(card["model_key"])
    target = _Target(folder, str(given.get("family", key.partition("-")[0])), key, day or datetime.now(UTC).date())
    target.directory.mkdir(parents=True, exist_ok=True)
    frozen = target.directory / f"{FROZEN}-{name}"
    (frozen / MANIFEST).unlink(missing_ok=True)  # of an earlier submission of the same campaign
    manifest = freeze(store, name, frozen, partial=True)
    place = reference_folder(spec) if references is None else str(references)
    facts = _run_facts(given, manifest)
    sections, written, metrics = _TASKS[benchmark](store, spec, target, place, facts, on_member or _nothing)
    info = target.file(f"{benchmark}-run-info.json" if benchmark != "kappa-103" else _KAPPA_INFO)
    _write_run_info(info, manifest, facts)
    if benchmark == "kappa-103":
        sections["phonons"]["kappa_103"]["run_info_file"] = target.reference(info)
    card["metrics"] = _metrics_before(target.card) | sections
    check_card(card, str(author_file))
    with written_whole(target.card) as temporary:
        temporary.write_text(yaml.safe_dump(card, allow_unicode=True, sort_keys=False, width=120), encoding="utf-8")
    return Submission((*written, info, target.card, frozen / MANIFEST), metrics)


_KAPPA_INFO = "phonons-kappa-103-run-info.json"


def _nothing() -> None:
    pass


def _given(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(
            f"{path} is missing: write into it what results do not say, in the leaderboard's words (model_name, "
            "authors with the email of the first, license, doi, paper, repo, pr_url, checkpoint_url, dates, "
            "training_sets, train_task, openness, model_params, model_version); docs/benchmarks.md has an example"
        )
    given = read_yaml(path)
    if not isinstance(given, Mapping):
        raise InputError(f"{path} holds no fields; write them as `name: value`")
    return dict(plain_dates(given))


def _card(given: Mapping[str, Any], model: Mapping[str, Any], spec: CampaignSpec) -> dict[str, Any]:
    """The card without metrics: what results and force field say, replaced by what the author says."""
    found = resolve_model(model["location"])
    card = found.card
    derived: dict[str, Any] = {
        "model_key": str(model["label"]).lower().replace("_", "-"),
        "lifecycle": "active",
        "architecture_types": ["gnn"],
        "test_task": "IS2RE-SR",
        "targets": "EFS_G" if found.conservative else "EFS_D",
        "environment": _environment(found.card),
    }
    if card is not None and card.checkpoint is not None and card.checkpoint.parameters is not None:
        derived["model_params"] = card.checkpoint.parameters
    evaluation = _evaluation(spec)
    said = {name: value for name, value in given.items() if name not in (*_OWN_FIELDS, "metrics")}
    hyperparams = dict(said.pop("hyperparams", None) or {})
    hyperparams["evaluation"] = evaluation | dict(hyperparams.get("evaluation") or {})
    hyperparams["architecture"] = {"graph_construction_radius": model["cutoff_angstrom"]} | dict(
        hyperparams.get("architecture") or {}
    )
    return derived | said | {"hyperparams": hyperparams}


def _environment(card: ModelCard | None) -> dict[str, Any]:
    """Packages of this installation with their versions."""
    packages = ["esen_flows", "torch", *([] if card is None or card.package is None else [card.package])]
    return {
        "dependencies": [f"{package}=={version(package)}" for package in packages],
        "python_version": ".".join(platform.python_version_tuple()[:2]),
    }


def _evaluation(spec: CampaignSpec) -> dict[str, Any]:
    """Settings of the campaign under the names of the card."""
    if spec.property not in ("relax", "conductivity"):
        return {}
    protocol = with_values(base_protocol(spec, {}), spec.settings.items()).model_dump(mode="json")
    relax = protocol.get("relax", protocol)
    if spec.property == "relax":
        return {
            "ase_optimizer": str(relax["optimizer"]).upper(),
            "cell_filter": "FrechetCellFilter",
            "max_steps": relax["max_steps"],
            "max_force": relax["fmax_ev_per_angstrom"],
        }
    displacement = protocol.get("displacement", {}).get("displacement_angstrom")
    kappa: dict[str, Any] = {"protocol": "phonondb-v1"}
    if displacement is not None:
        kappa["displacement_distance"] = displacement
    if spec.protocol and spec.protocol.endswith("two-stage"):
        kappa["relaxation_mode"] = "two-stage"
    return {"kappa": kappa}


def _run_facts(given: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
    devices = manifest.device_seconds
    hardware = given.get("hardware") or ", ".join(sorted(devices)) or "unknown"
    return {"hardware": str(hardware), "run_time_sec": round(sum(devices.values()), 2)}


def _write_run_info(path: Path, manifest: Manifest, facts: Mapping[str, Any]) -> None:
    """Hardware, time and environment, and what was computed with what: each with its sha256."""
    record = manifest.model_dump(mode="json", exclude={"spec_text"})
    environment = {name: record.pop(name) for name in ("python", "lock", "versions")}
    content = {
        "run_metadata": {**facts, "device_seconds": record.pop("device_seconds"), "environment": environment},
        "manifest": {
            "dataset": {"sha256": manifest.structures.sha256, "n_structures": manifest.structures.count},
            "settings": {"sha256": manifest.spec_sha256, **record.pop("spec")},
            "checkpoints": record.pop("models"),
            **record,
        },
    }
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _metrics_before(card: Path) -> dict[str, Any]:
    """Sections of the tasks that another campaign has written."""
    if not card.is_file():
        return {}
    return dict((read_yaml(card) or {}).get("metrics") or {})


_Written = tuple[dict[str, dict[str, Any]], list[Path], Mapping[str, float | None]]


def _write_discovery(
    store: Store,
    spec: CampaignSpec,
    target: _Target,
    place: str | None,
    facts: Mapping[str, Any],
    on_member: Callable[[], None],
) -> _Written:
    energies: dict[str, float | None] = {}
    csv, structures = target.file(DISCOVERY), target.file(GEOMETRY)
    pending = 0
    with compressed_text(structures) as stream:
        for result in discovery_results(store, spec, place, on_member):
            pending += len(result.materials) if result.state == "pending" else 0
            for material in result.materials:
                energies[material] = result.e_form_ev_per_atom
                # A crystal without a correction has no place among the structures either.
                if result.crystal is not None and result.e_form_ev_per_atom is not None:
                    write_structure(stream, result.crystal.named(material))
    write_formation_energies(csv, dict(sorted(energies.items())))
    scores = _scores(target, place, {"discovery", "geometry"})
    analyses, paths = {}, [csv, structures]
    for tolerance, rows in scores.geometry.items():
        path = target.file(f"geo-opt-symprec={tolerance}-moyo={version('moyopy')}.csv.gz")
        write_symmetries(path, rows, tolerance)
        analyses[tolerance] = target.reference(path)
        paths.append(path)
    reason = None
    done = len(energies) - pending
    if pending or done < _N_WBM:
        reason = f"{done:,} of the {_N_WBM:,} crystals of WBM: {spec.description or spec.name}"
    sections = {"discovery": discovery_section(scores.metrics, reason, {"pred_file": target.reference(csv), **facts})}
    geometry = geometry_section(scores.metrics, reason, analyses, {"pred_file": target.reference(structures)})
    return sections | {"geo_opt": geometry}, paths, scores.metrics


def _scores(target: _Target, place: str | None, tasks: set[str]) -> Scores:
    """Metrics of the files as `leaderboard score` finds them."""
    return score_artefacts(
        target.directory, partial(reference_file, folder=place), partial(dft_structures, place), tasks
    )


def _write_conductivity(
    store: Store,
    spec: CampaignSpec,
    target: _Target,
    place: str | None,
    facts: Mapping[str, Any],
    on_member: Callable[[], None],
) -> _Written:
    path = target.file(CONDUCTIVITY)
    rows = conductivity_records(store, spec, place, on_member)
    write_conductivities(path, rows)
    scores = _scores(target, place, {"conductivity"})
    done = sum("absent" not in row["errors"] and "pending" not in row["errors"] for row in rows)
    reason = None if done == _N_PHONONDB else f"{done} of the {_N_PHONONDB} crystals of PhononDB"
    section = conductivity_section(scores.metrics, reason, {"pred_file": target.reference(path), **facts})
    return {"phonons": section}, [path], scores.metrics


def _write_diatomics(
    store: Store,
    spec: CampaignSpec,
    target: _Target,
    place: str | None,
    facts: Mapping[str, Any],
    on_member: Callable[[], None],
) -> _Written:
    (row,) = member_rows(store, spec.name)
    document = store.get(row["key"]) if row["state"] == "finished" else None
    if document is None or document.output is None:
        raise InputError(f"the curves of campaign {spec.name} are {row['state']}; there is nothing to submit")
    on_member()
    path = target.file(DIATOMICS)
    facts = {**facts, "run_time_sec": round(document.provenance.seconds, 1)}
    write_diatomics(path, DiatomicsOutput.model_validate(document.output), facts)
    scores = _scores(target, place, {"diatomics"})
    excluded = read_run_metadata(path)["excluded_formula_reasons"]
    known = {"excluded_formula_reasons": excluded} if excluded else {}
    section = diatomics_section(scores.metrics, {"pred_file": target.reference(path), **facts, **known})
    return {"diatomics": section}, [path], scores.metrics


def _write_md(
    store: Store,
    spec: CampaignSpec,
    target: _Target,
    place: str | None,
    facts: Mapping[str, Any],
    on_member: Callable[[], None],
) -> _Written:
    rows = md_rows(store, spec, place, str(facts["hardware"]), on_member)
    path = target.file(MD)
    write_md_metrics(path, rows)
    scores = _scores(target, place, {"md"})
    done = sum(row["state"] == "finished" for row in rows)
    reason = None if done == _N_DYNAMAT else f"{done} of the {_N_DYNAMAT} systems of DynaMat"
    if spec.protocol != "dynamat-v1" or spec.settings:
        other = ", ".join(f"{name}={value}" for name, value in spec.settings.items()) or f"protocol {spec.protocol}"
        reason = f"{reason + '; ' if reason else ''}not the protocol dynamat-v1 as it is ({other})"
    known = {"pred_file": target.reference(path), "hardware": facts["hardware"]}
    return {"md": md_section(scores.metrics, reason, known)}, [path], scores.metrics


_TASKS = {
    "discovery": _write_discovery,
    "kappa-103": _write_conductivity,
    "diatomics": _write_diatomics,
    "md": _write_md,
}
