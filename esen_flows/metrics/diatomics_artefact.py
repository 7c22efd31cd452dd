"""The file of the diatomics task of a submission: written from a result, and scored without it."""

import gzip
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from esen_flows.errors import InputError
from esen_flows.metrics.artefacts import compressed_text
from esen_flows.metrics.diatomics import curves_of, model_metrics, pbe_curves, read_curves
from esen_flows.schemas.diatomics import ELEMENTS, DiatomicsOutput

DIATOMICS = "diatomics.json.gz"


def write_diatomics(path: Path, output: DiatomicsOutput, facts: Mapping[str, Any]) -> None:
    """Write the file of the diatomics task.

    Parameters
    ----------
    path
        File to write.
    output
        Curves by the force field.
    facts
        "hardware" and "run_time_sec" (s) of the run.
    """
    curves = curves_of(output)
    reasons = {
        f"{element}-{element}": output.excluded.get(element, "invalid or unsupported curve")
        for element in ELEMENTS
        if element not in curves
    }
    content = {
        "homo-nuclear": {
            f"{element}-{element}": {
                "distances": curve.distances_angstrom.tolist(),
                "energies": curve.energies_ev.tolist(),
                "forces": curve.forces_ev_per_angstrom.tolist(),
            }
            for element, curve in curves.items()
        },
        "hetero-nuclear": {},
        "distances": np.asarray(output.distances_angstrom).tolist(),
        "run_metadata": {**facts, "excluded_formula_reasons": reasons},
    }
    with compressed_text(path) as stream:
        json.dump(content, stream, separators=(",", ":"))


def read_run_metadata(path: Path) -> dict[str, Any]:
    """Hardware, time and excluded elements of the file of the diatomics task.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict
        "hardware", "run_time_sec" and "excluded_formula_reasons" as far as they are there.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    try:
        return dict(json.loads(gzip.decompress(path.read_bytes())).get("run_metadata") or {})
    except (OSError, EOFError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: no diatomic curves can be read ({type(error).__name__}: {error})") from None


def diatomics_scores(path: Path) -> dict[str, float | None]:
    """Metrics of the file of the diatomics task.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict
        Metrics under the names of the table of published results, such as `diatomics_tortuosity`; None where one is not
        defined.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    curves, facts = read_curves(path), read_run_metadata(path)
    found = model_metrics(curves, pbe_curves())
    metrics: dict[str, float | None] = {
        f"diatomics_{name}": value if math.isfinite(value) else None for name, value in found.items()
    }
    if isinstance(facts.get("run_time_sec"), int | float):
        metrics["diatomics_run_time_sec"] = float(facts["run_time_sec"])
    return metrics | {"diatomics_excluded": len(set(ELEMENTS) - set(curves))}
