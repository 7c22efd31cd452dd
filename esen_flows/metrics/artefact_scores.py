"""All metrics of the leaderboard from the files of a submission alone."""

import json
import math
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pymatgen.core import Structure

from esen_flows.errors import InputError
from esen_flows.metrics.artefacts import (
    CONDUCTIVITY,
    DISCOVERY,
    GEOMETRY,
    dated_files,
    read_conductivities,
    read_formation_energies,
    read_structures,
)
from esen_flows.metrics.conductivity import conductivity_errors, conductivity_metrics, read_reference_conductivities
from esen_flows.metrics.diatomics_artefact import DIATOMICS, diatomics_scores
from esen_flows.metrics.discovery import (
    flat_discovery_metrics,
    predicted_hull_distances,
    read_discovery_reference,
)
from esen_flows.metrics.formation_energy import read_elemental_references, total_energy
from esen_flows.metrics.geometry import (
    TOLERANCES,
    GeometryRow,
    compare_structures,
    flat_geometry_metrics,
)
from esen_flows.metrics.hull import hull_distances, read_computed_entries
from esen_flows.metrics.md_artefact import MD, md_means, read_md_metrics
from esen_flows.metrics.published import with_scores

# File of each task.
TASKS = {"discovery": DISCOVERY, "geometry": GEOMETRY, "conductivity": CONDUCTIVITY, "diatomics": DIATOMICS, "md": MD}


@dataclass
class Scores:
    """Metrics of the files of a submission.

    Attributes
    ----------
    files
        File of each task that was found, by the keys of `TASKS`.
    metrics
        Metrics under the names of the table of published results, with the combined scores that follow from them; None
        where a metric is not defined.
    geometry
        Comparison of each relaxed structure with DFT's, by tolerance and material.
    """

    files: dict[str, Path] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)
    geometry: dict[str, dict[str, GeometryRow]] = field(default_factory=dict)


def score_artefacts(
    folder: Path,
    reference: Callable[[str], Path],
    structures: Callable[[], Iterable[tuple[str, Structure]]],
    tasks: Collection[str] = tuple(TASKS),
) -> Scores:
    """Metrics of a folder with the files of a submission; nothing else of the submission is read.

    Parameters
    ----------
    folder
        Folder that holds the files, or one above it. Of several dates the last one counts.
    reference
        Gives the file of a reference set by its name: "wbm-summary", "phonondb-103-kappa".
    structures
        Gives numbers and structures of the crystals that DFT relaxed, for the geometry task.
    tasks
        Tasks to score, some of `TASKS`.

    Returns
    -------
    Scores
        The metrics.

    Raises
    ------
    InputError
        The folder holds no file of a task or those of several submissions, a file cannot be read, or a reference is not
        there.
    """
    scores = Scores()
    scores.files = dated_files(folder, {task: TASKS[task] for task in tasks})
    if not scores.files:
        names = ", ".join(f"YYYY-MM-DD-{ending}" for ending in TASKS.values())
        raise InputError(f"{folder} has no file of a submission ({names}); write one with: campaign submission NAME")
    if "discovery" in scores.files:
        energies = read_formation_energies(scores.files["discovery"])
        scores.metrics |= flat_discovery_metrics(read_discovery_reference(reference("wbm-summary")), energies)[0]
    if "geometry" in scores.files:
        scores.geometry = compare_file(scores.files["geometry"], structures())
        scores.metrics |= flat_geometry_metrics({name: [*rows.values()] for name, rows in scores.geometry.items()})
    if "conductivity" in scores.files:
        scores.metrics |= _conductivity(scores.files["conductivity"], reference("phonondb-103-kappa"))
    if "diatomics" in scores.files:
        scores.metrics |= diatomics_scores(scores.files["diatomics"])
    if "md" in scores.files:
        scores.metrics |= md_means(read_md_metrics(scores.files["md"]))
    known = {name: value for name, value in scores.metrics.items() if value is not None}
    scores.metrics |= with_scores(known)
    return scores


def compare_file(path: Path, structures: Iterable[tuple[str, Structure]]) -> dict[str, dict[str, GeometryRow]]:
    """Comparison of each structure of a geometry file with DFT's.

    Parameters
    ----------
    path
        The geometry file.
    structures
        Numbers and structures of the crystals that DFT relaxed.

    Returns
    -------
    dict
        Comparison by tolerance and material, in the order of the file. A structure that DFT has not is left out.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    # Compressed, because a quarter of a million structures would not fit into memory.
    ours = {
        each.material: zlib.compress(json.dumps(each.structure.as_dict(verbosity=0)).encode(), 1)
        for each in read_structures(path)
    }
    rows: dict[str, dict[str, GeometryRow]] = {}
    for material, theirs in structures:
        if len(rows) == len(ours):
            break
        if material in ours:
            rows[material] = compare_structures(
                Structure.from_dict(json.loads(zlib.decompress(ours[material]))), theirs
            )
    return {name: {each: rows[each][name] for each in ours if each in rows} for name in TOLERANCES}


def _conductivity(path: Path, reference: Path) -> Mapping[str, float | None]:
    theirs, ours = read_reference_conductivities(reference), read_conductivities(path)
    if set(ours) != set(theirs):
        raise InputError(
            f"{path}: it has {len(ours)} materials, of which {len(set(ours) & set(theirs))} are among the "
            f"{len(theirs)} of {reference.name}; the leaderboard takes exactly these"
        )
    return conductivity_metrics([conductivity_errors(ours[name], dft) for name, dft in theirs.items()])


def hull_deviation(scores: Scores, reference: Callable[[str], Path], entries: Path) -> float:
    """Largest difference between hull distances by a phase diagram and by the identity of a hull that does not move.

    Parameters
    ----------
    scores
        Scores with files of the discovery and the geometry task.
    reference
        As for `score_artefacts`; "mp-elements" is needed too.
    entries
        File of the computed entries that make up the hull.

    Returns
    -------
    float
        Difference in eV/atom, over the crystals that have a hull distance by DFT.

    Raises
    ------
    InputError
        A file of the submission or a reference is not there, or an element has no entry.
    """
    if not {"discovery", "geometry"} <= set(scores.files):
        raise InputError("hull distances need the files of the discovery and the geometry task")
    dft = read_discovery_reference(reference("wbm-summary"))
    elements = read_elemental_references(reference("mp-elements"))
    energies = read_formation_energies(scores.files["discovery"])
    if energies.keys().isdisjoint(dft.material_ids.tolist()):
        raise InputError(f"{scores.files['discovery']}: no crystal of the reference is in it")
    shifted = dict(zip(dft.material_ids.tolist(), predicted_hull_distances(dft, energies).tolist(), strict=True))
    names, crystals = [], []
    for crystal in read_structures(scores.files["geometry"]):
        if math.isfinite(shifted.get(crystal.material, math.nan)):
            composition = crystal.structure.composition
            names.append(crystal.material)
            crystals.append((composition, total_energy(energies[crystal.material], composition, elements)))
    distances = hull_distances(read_computed_entries(entries), crystals)
    return max((abs(distance - shifted[name]) for name, distance in zip(names, distances, strict=True)), default=0.0)
