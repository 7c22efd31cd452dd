"""What the results of a campaign are worth: the metrics of its benchmark, by force field."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from esen_flows.campaigns.benchmark_conductivity import conductivity_benchmark
from esen_flows.campaigns.benchmark_diatomics import diatomics_benchmark
from esen_flows.campaigns.benchmark_discovery import discovery_benchmark
from esen_flows.campaigns.benchmark_md import md_benchmark
from esen_flows.campaigns.benchmark_phonons import phonon_benchmark
from esen_flows.campaigns.benchmark_static_errors import static_errors_benchmark
from esen_flows.campaigns.judged_models import JudgedModel
from esen_flows.campaigns.records import refreshed_campaign
from esen_flows.errors import InputError
from esen_flows.files import written_whole
from esen_flows.schemas.campaign import Benchmark, CampaignSpec
from esen_flows.store.results import Store

_JUDGES = {
    "kappa-103": conductivity_benchmark,
    "discovery": discovery_benchmark,
    "diatomics": diatomics_benchmark,
    "mdr-phonons": phonon_benchmark,
    "md": md_benchmark,
    "static-errors": static_errors_benchmark,
}
# Benchmarks that a property of a published set belongs to without being named.
_OF_SETS: dict[tuple[str, str | None], Benchmark] = {
    ("conductivity", "phonondb-103"): "kappa-103",
    ("phonon", "mdr"): "mdr-phonons",
    ("md", "dynamat"): "md",
}


def benchmark_of(spec: CampaignSpec) -> Benchmark | None:
    """Benchmark of a campaign: the one it names, or the one that its published structures belong to.

    Parameters
    ----------
    spec
        Specification.

    Returns
    -------
    str or None
        Name of the benchmark; None if there is none.
    """
    published = None if spec.structures is None else spec.structures.published
    return spec.benchmark or _OF_SETS.get((spec.property, published))


def reference_folder(spec: CampaignSpec) -> str | None:
    """Folder that is searched first for DFT's results.

    Parameters
    ----------
    spec
        Specification of a campaign.

    Returns
    -------
    str or None
        Folder of its published structures; None if it has none.
    """
    source = spec.structures
    return source.folder if source is not None and source.published else None


def campaign_metrics(
    store: Store, name: str, folder: Path | None = None, on_member: Callable[[], None] | None = None
) -> tuple[JudgedModel, ...]:
    """Metrics of a campaign, finished or not.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    folder
        Folder to look for DFT's results in first. Default: that of the published structures. After it, the reference
        sets of this machine are searched.
    on_member
        Called for each member.

    Returns
    -------
    tuple of JudgedModel
        Metrics of each force field, in the order of the specification.

    Raises
    ------
    InputError
        There is no such campaign, it has no benchmark, or the reference is not there.
    """
    campaign, spec = refreshed_campaign(store, name)
    benchmark = benchmark_of(spec)
    if benchmark is None:
        raise InputError(
            f"campaign {name} has no benchmark: its specification names none, and its structures are no published set "
            f"with reference values; write benchmark: {' or '.join(_JUDGES)} into it"
        )
    place = reference_folder(spec) if folder is None else str(folder)
    labels = [str(model["label"]) for model in campaign["models"]]
    return tuple(_JUDGES[benchmark](store, spec, labels, place, on_member or _nothing))


def _nothing() -> None:
    pass


def plain_metrics(models: Sequence[JudgedModel]) -> list[dict[str, Any]]:
    """Metrics as values for JSON, without the materials.

    Parameters
    ----------
    models
        Metrics of each force field.

    Returns
    -------
    list of dict
        One dictionary for each force field.
    """
    return [{name: value for name, value in vars(each).items() if name != "materials"} for each in models]


def write_materials(models: Sequence[JudgedModel], path: Path) -> Path:
    """Write the values and errors of each material and force field as CSV.

    Parameters
    ----------
    models
        Metrics of each force field.
    path
        File to write.

    Returns
    -------
    Path
        The file.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = tuple(dict.fromkeys(name for model in models for row in model.materials[:1] for name in row))
    writer.writerow(("model", *names))
    for model in models:
        writer.writerows((model.model, *(row[name] for name in names)) for row in model.materials)
    with written_whole(path) as temporary:
        temporary.write_text(out.getvalue(), encoding="utf-8")
    return path
