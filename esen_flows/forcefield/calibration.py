"""Training atoms of a network that tell atoms like them from others, and the file that keeps them.

`forcefield.extrapolation` makes and uses them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as as_bytes

from esen_flows.errors import ModelError
from esen_flows.files import written_whole

METADATA_NAME = "esen_flows_domain"
SUFFIX = ".domain.safetensors"


@dataclass(frozen=True)
class Calibration:
    """Training atoms of a network to compare others with, and the limit of what is like them.

    Attributes
    ----------
    model_key
        Key of the network.
    limit
        Largest extrapolation of structures that are like the training data.
    chemical_systems
        Sets of elements of the training structures, such as "As-Ga".
    whitening
        (d, d) float32 matrix that features are multiplied with.
    centres
        By atomic number, (d,) float32 mean of the whitened features.
    prototypes
        By atomic number, (k, d) float16 whitened features of training atoms, relative to the centre.
    units
        By atomic number, the distance that is an extrapolation of 1.
    """

    model_key: str
    limit: float
    chemical_systems: tuple[str, ...]
    whitening: np.ndarray
    centres: Mapping[int, np.ndarray]
    prototypes: Mapping[int, np.ndarray]
    units: Mapping[int, float]

    def of_atoms(self, numbers: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Extrapolations of atoms.

        Parameters
        ----------
        numbers
            (n,) atomic numbers.
        features
            (n, d) their features.

        Returns
        -------
        np.ndarray
            (n,) distances to the nearest prototype over the unit of the element; infinite for an element without
            prototypes.
        """
        result = np.full(len(numbers), np.inf)
        whitened = features.astype(np.float64) @ self.whitening.astype(np.float64)
        for number in set(numbers.tolist()) & set(self.prototypes):
            mine = numbers == number
            result[mine] = (
                distances_to(self.prototypes[number], whitened[mine] - self.centres[number]) / self.units[number]
            )
        return result


def calibration_beside(checkpoint: Path) -> Path:
    """Where the calibration of a checkpoint is.

    Parameters
    ----------
    checkpoint
        Path of the checkpoint.

    Returns
    -------
    Path
        The file beside it; it need not exist.
    """
    return checkpoint.with_name(checkpoint.name.removesuffix(".safetensors") + SUFFIX)


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration as a safetensors file.

    Parameters
    ----------
    path
        File to write.
    calibration
        The calibration.
    """
    numbers = sorted(calibration.prototypes)
    facts = {
        "model_key": calibration.model_key,
        "limit": calibration.limit,
        "chemical_systems": calibration.chemical_systems,
    }
    tensors = {
        "whitening": calibration.whitening,
        "numbers": np.repeat(numbers, [len(calibration.prototypes[z]) for z in numbers]).astype(np.int16),
        "prototypes": np.concatenate([calibration.prototypes[z] for z in numbers]),
        "elements": np.array(numbers, dtype=np.int16),
        "centres": np.stack([calibration.centres[z] for z in numbers]),
        "units": np.array([calibration.units[z] for z in numbers]),
    }
    with written_whole(path) as temporary:
        temporary.write_bytes(as_bytes(tensors, metadata={METADATA_NAME: json.dumps(facts)}))


def load_calibration(path: Path, model_key: str) -> Calibration:
    """Read the calibration of a network.

    Parameters
    ----------
    path
        File that `save_calibration` wrote.
    model_key
        Key of the network.

    Returns
    -------
    Calibration
        The calibration.

    Raises
    ------
    ModelError
        The file is missing, is no calibration, or belongs to another network.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads((file.metadata() or {})[METADATA_NAME])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
            numbers, rows = tensors["numbers"], tensors["prototypes"]
            units = dict(zip(tensors["elements"].tolist(), tensors["units"].tolist(), strict=True))
            found = Calibration(
                str(facts["model_key"]),
                float(facts["limit"]),
                tuple(facts["chemical_systems"]),
                tensors["whitening"],
                dict(zip(units, tensors["centres"], strict=True)),
                {z: rows[numbers == z] for z in units},
                units,
            )
    except (OSError, SafetensorError, LookupError, ValueError, TypeError) as error:
        raise ModelError(
            f"{path} is no calibration of a domain ({error!s:.200}); make it again: esen-flows models calibrate"
        ) from error
    if found.model_key != model_key:
        raise ModelError(
            f"{path} is of model {found.model_key[:12]}, not of {model_key[:12]}; make it again by esen-flows models "
            "calibrate, or remove the file"
        )
    return found


def distances_to(prototypes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distances to the nearest prototype.

    Parameters
    ----------
    prototypes
        (k, d) whitened features.
    points
        (n, d) whitened features.

    Returns
    -------
    np.ndarray
        (n,) distances.
    """
    others = prototypes.astype(np.float64)
    squares = (points**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * points @ others.T
    return np.sqrt(np.maximum(squares.min(axis=1), 0.0))
