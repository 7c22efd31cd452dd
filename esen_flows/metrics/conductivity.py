"""Conductivity against DFT on PhononDB's 103 crystals: SRD, SRE, SRME, failure rates and distance of the spectra."""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from esen_flows.errors import InputError

Floats = NDArray[np.float64]
# What the leaderboard gives a crystal without an answer.
WORST_SRD = -2.0
WORST_SRME = 2.0
REFERENCE_KELVIN = 300.0


@dataclass(frozen=True)
class ModeConductivity:
    """Conductivity of one crystal by modes, at one temperature.

    Attributes
    ----------
    kappa_w_per_m_k
        Conductivity in W/m/K, mean of xx, yy and zz; None where there is none.
    mode_kappa_w_per_m_k
        (n_q, n_bands) contribution of each mode in W/m/K, whose sum is `kappa_w_per_m_k`; None where there is none.
    frequencies_thz
        (n_q, n_bands) frequencies in THz at the irreducible q-points; None where there are none.
    q_weights
        (n_q,) number of equivalent q-points of each; None where there are none.
    imaginary
        Whether modes are imaginary.
    broken_symmetry
        Whether the relaxation left the space group.
    """

    kappa_w_per_m_k: float | None
    mode_kappa_w_per_m_k: Floats | None = None
    frequencies_thz: Floats | None = None
    q_weights: Floats | None = None
    imaginary: bool = False
    broken_symmetry: bool = False


@dataclass(frozen=True)
class ConductivityErrors:
    """Errors of one crystal.

    Attributes
    ----------
    srd
        Symmetric relative difference 2 (k - k_DFT) / (k + k_DFT), between -2 and 2; -2 without a conductivity.
    sre
        Symmetric relative error, the magnitude of `srd`.
    srme
        Symmetric relative mean error over the modes, between 0 and 2; 2 for a failure.
    failed
        Whether the crystal counts as a failure: imaginary modes, broken symmetry, no conductivity or no modes, modes of
        another shape than DFT's, or an SRME outside of 0 to 2.
    imaginary
        Whether modes are imaginary.
    spectrum_w1_thz
        Wasserstein distance of the two spectra in THz, rounded to four decimals as the leaderboard does; None without
        two spectra.
    """

    srd: float
    sre: float
    srme: float
    failed: bool
    imaginary: bool
    spectrum_w1_thz: float | None


def conductivity_errors(predicted: ModeConductivity | None, reference: ModeConductivity) -> ConductivityErrors:
    """Errors of the conductivity of one crystal.

    SRD and SRE keep the value of a crystal with imaginary modes or broken symmetry where there is one; SRME does not.

    Parameters
    ----------
    predicted
        Conductivity by the force field; None where nothing was computed.
    reference
        Conductivity by DFT, with its modes.

    Returns
    -------
    ConductivityErrors
        Errors of kappa, of its modes and of the spectrum.

    Raises
    ------
    InputError
        The reference has no conductivity or no modes.
    """
    if reference.kappa_w_per_m_k is None or reference.mode_kappa_w_per_m_k is None:
        raise InputError("the reference has no conductivity by modes; the metrics need both")
    if predicted is None:
        return ConductivityErrors(WORST_SRD, -WORST_SRD, WORST_SRME, True, False, None)
    kappa = predicted.kappa_w_per_m_k
    if kappa is None or not np.isfinite(kappa):
        srd = WORST_SRD
    else:
        srd = 2 * (kappa - reference.kappa_w_per_m_k) / (kappa + reference.kappa_w_per_m_k)
    srme = None if predicted.imaginary or predicted.broken_symmetry else _srme(predicted, reference)
    return ConductivityErrors(
        srd=float(srd),
        sre=float(abs(srd)),
        srme=WORST_SRME if srme is None else srme,
        failed=srme is None,
        imaginary=predicted.imaginary,
        spectrum_w1_thz=None if predicted.broken_symmetry else _spectrum_distance(predicted, reference),
    )


def _srme(predicted: ModeConductivity, reference: ModeConductivity) -> float | None:
    """The symmetric relative mean error; None for a failure."""
    kappa, modes = predicted.kappa_w_per_m_k, predicted.mode_kappa_w_per_m_k
    if kappa is None or modes is None or reference.mode_kappa_w_per_m_k is None or reference.kappa_w_per_m_k is None:
        return None
    if modes.shape != reference.mode_kappa_w_per_m_k.shape:
        return None
    error = 2 * np.abs(modes - reference.mode_kappa_w_per_m_k).sum() / (kappa + reference.kappa_w_per_m_k)
    return float(error) if 0 <= error <= WORST_SRME else None  # NaN is a failure too


def _spectrum_distance(predicted: ModeConductivity, reference: ModeConductivity) -> float | None:
    """The Wasserstein distance of all mode frequencies in THz, weighted by the number of equivalent q-points."""
    spectra = []
    for crystal in (predicted, reference):
        frequencies = crystal.frequencies_thz
        if frequencies is None or not frequencies.size or not np.isfinite(frequencies).all():
            return None
        weights = crystal.q_weights
        if weights is None or len(weights) != len(frequencies):
            weights = np.ones(len(frequencies))
        spectra.append((frequencies.ravel(), np.repeat(weights, frequencies.shape[1])))
    (ours, our_weights), (theirs, their_weights) = spectra
    return round(float(wasserstein_distance(ours, theirs, our_weights, their_weights)), 4)


def conductivity_metrics(errors: Sequence[ConductivityErrors]) -> dict[str, float | None]:
    """Means over all crystals, under the keys of the leaderboard's model cards.

    Parameters
    ----------
    errors
        Errors of each crystal of the reference, also of those without an answer.

    Returns
    -------
    dict
        "κ_SRME", "κ_SRE", "κ_SRD", "κ_failure_rate", "imaginary_mode_rate", and "spectrum_w1" in THz (over the crystals
        with two spectra, None if there is none).

    Raises
    ------
    InputError
        There is no crystal.
    """
    if not errors:
        raise InputError("no crystal to take the mean over")
    distances = [error.spectrum_w1_thz for error in errors if error.spectrum_w1_thz is not None]
    return {
        "κ_SRME": float(np.mean([error.srme for error in errors])),
        "κ_SRE": float(np.mean([error.sre for error in errors])),
        "κ_SRD": float(np.mean([error.srd for error in errors])),
        "κ_failure_rate": float(np.mean([error.failed for error in errors])),
        "imaginary_mode_rate": float(np.mean([error.imaginary for error in errors])),
        "spectrum_w1": float(np.mean(distances)) if distances else None,
    }


def mode_conductivity(summary: Mapping[str, object], output: Mapping[str, object] | None) -> ModeConductivity:
    """Conductivity by modes of a stored conductivity document.

    The modes are those of the Wigner transport equation where the document has them, as the leaderboard's are,
    otherwise those of the relaxation-time approximation.

    Parameters
    ----------
    summary
        Summary of the document.
    output
        Output of the document, at one temperature near 300 K; None if it was not kept.

    Returns
    -------
    ModeConductivity
        Conductivity in the form that `conductivity_errors` takes.

    Raises
    ------
    InputError
        The document has no conductivity at 300 K.
    """
    temperature = summary.get("temperature_kelvin")
    if isinstance(temperature, int | float) and abs(temperature - REFERENCE_KELVIN) > 0.5:
        raise InputError(
            f"a conductivity at {temperature:g} K cannot be compared with DFT's at {REFERENCE_KELVIN:g} K; compute it "
            f"with temperatures_kelvin: [{REFERENCE_KELVIN:g}]"
        )
    values = (summary.get("kappa_wigner_w_per_m_k"), summary.get("kappa_rta_w_per_m_k"))
    kappa = next((float(value) for value in values if isinstance(value, int | float)), None)
    if output is None:
        return ModeConductivity(kappa)
    modes = output.get("mode_kappa_w_per_m_k")
    by_method = modes if isinstance(modes, Mapping) else {}
    chosen = by_method.get("wigner", by_method.get("rta"))
    # Documents of earlier versions have no modes; their SRME is then that of a failure, and their SRD is right.
    array = None if chosen is None else np.asarray(chosen, dtype=float)
    return ModeConductivity(
        kappa_w_per_m_k=kappa if array is None else float(array.sum()),
        mode_kappa_w_per_m_k=array,
        frequencies_thz=np.asarray(output["frequencies_thz"], dtype=float),
        q_weights=np.asarray(output["q_weights"], dtype=float),
    )


def read_reference_conductivities(path: Path) -> dict[str, ModeConductivity]:
    """Conductivities by DFT of PhononDB's 103 crystals.

    Parameters
    ----------
    path
        kappas_phononDB_PBE_noNAC.json.gz or the file with the non-analytical term correction.

    Returns
    -------
    dict
        Conductivity by modes of each Materials Project number, at 300 K.

    Raises
    ------
    InputError
        The file cannot be read, or a column is missing.
    """
    try:
        columns = {name: _values(column) for name, column in json.loads(gzip.decompress(path.read_bytes())).items()}
        rows = zip(
            columns["mp_id"], columns["kappa_TOT_ave"], columns["mode_kappa_TOT_ave"], columns["frequencies"],
            columns["weights"], strict=True,
        )  # fmt: skip
        found = {}
        for mp_id, kappa, modes, frequencies, weights in rows:
            multiplicities = np.array(weights, dtype=float)
            found[str(mp_id)] = ModeConductivity(
                kappa_w_per_m_k=float(kappa[0]),
                # Stored with their multiplicities, so that their sum is kappa times the number of q-points.
                mode_kappa_w_per_m_k=np.array(modes[0], dtype=float) / multiplicities.sum(),
                frequencies_thz=np.array(frequencies, dtype=float),
                q_weights=multiplicities,
            )
        return found
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"{path}: no reference conductivities can be read ({type(error).__name__}: {error})") from None


def _values(column: Mapping[str, Any] | Sequence[Any]) -> list[Any]:
    """The values of a column of a table in JSON, which are numbered or listed."""
    return list(column.values()) if isinstance(column, Mapping) else list(column)
