"""Conductivity metrics: hand-made cases, and the published aggregates of forty models."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from esen_flows.errors import InputError
from esen_flows.metrics.conductivity import (
    ConductivityErrors,
    ModeConductivity,
    conductivity_errors,
    conductivity_metrics,
    mode_conductivity,
    read_reference_conductivities,
)

MODES = np.array([[1.0, 2.0], [3.0, 4.0]])
FREQUENCIES = np.array([[0.0, 1.0], [2.0, 3.0]])
REFERENCE = ModeConductivity(10.0, MODES, FREQUENCIES, np.array([1.0, 3.0]))


def predicted(kappa: float | None = 10.0, modes: np.ndarray | None = MODES, **others: object) -> ModeConductivity:
    return ModeConductivity(kappa, modes, FREQUENCIES, np.array([1.0, 3.0]), **others)  # type: ignore[arg-type]


def test_the_reference_has_no_error() -> None:
    assert conductivity_errors(predicted(), REFERENCE) == ConductivityErrors(0.0, 0.0, 0.0, False, False, 0.0)


def test_errors_of_modes_do_not_cancel() -> None:
    """Two modes exchange 1 W/m/K: kappa is right, and SRME is 2 (1 + 1) / 20."""
    errors = conductivity_errors(predicted(modes=MODES + np.array([[1.0, 0.0], [0.0, -1.0]])), REFERENCE)
    assert errors.srd == 0.0
    assert errors.srme == pytest.approx(0.2)


def test_half_the_conductivity() -> None:
    errors = conductivity_errors(predicted(5.0, MODES / 2), REFERENCE)
    assert errors.srd == pytest.approx(-2 / 3)
    assert errors.sre == pytest.approx(2 / 3)
    assert errors.srme == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "crystal",
    [
        predicted(imaginary=True),
        predicted(broken_symmetry=True),
        predicted(modes=None),
        predicted(modes=MODES[:1]),
        predicted(modes=MODES * np.nan),
        predicted(-9.0, -MODES),
    ],
)
def test_failures_cost_the_worst_srme(crystal: ModeConductivity) -> None:
    errors = conductivity_errors(crystal, REFERENCE)
    assert errors.failed
    assert errors.srme == 2.0


def test_srd_keeps_the_value_of_an_unstable_crystal() -> None:
    errors = conductivity_errors(predicted(5.0, MODES / 2, imaginary=True), REFERENCE)
    assert errors.srd == pytest.approx(-2 / 3)
    assert errors.imaginary


@pytest.mark.parametrize("kappa", [None, float("nan")])
def test_no_conductivity_is_the_worst_srd(kappa: float | None) -> None:
    errors = conductivity_errors(predicted(kappa), REFERENCE)
    assert (errors.srd, errors.sre, errors.srme) == (-2.0, 2.0, 2.0)


def test_a_material_that_was_not_computed() -> None:
    assert conductivity_errors(None, REFERENCE) == ConductivityErrors(-2.0, 2.0, 2.0, True, False, None)


def test_spectra_are_weighted_by_the_multiplicities() -> None:
    """Modes of the second q-point, three of four, are 0.4 THz higher."""
    crystal = ModeConductivity(10.0, MODES, FREQUENCIES + np.array([[0.0], [0.4]]), np.array([1.0, 3.0]))
    assert conductivity_errors(crystal, REFERENCE).spectrum_w1_thz == pytest.approx(0.3)
    broken = ModeConductivity(10.0, MODES, FREQUENCIES, np.array([1.0, 3.0]), broken_symmetry=True)
    assert conductivity_errors(broken, REFERENCE).spectrum_w1_thz is None


def test_a_reference_without_modes_is_refused() -> None:
    with pytest.raises(InputError, match="reference has no conductivity by modes"):
        conductivity_errors(predicted(), ModeConductivity(10.0))
    with pytest.raises(InputError, match="no crystal"):
        conductivity_metrics([])


def test_means() -> None:
    rows = [conductivity_errors(crystal, REFERENCE) for crystal in (predicted(), predicted(imaginary=True), None)]
    means = conductivity_metrics(rows)
    assert means["κ_SRME"] == pytest.approx(4 / 3)
    assert means["κ_SRD"] == pytest.approx(-2 / 3)
    assert means["κ_SRE"] == pytest.approx(2 / 3)
    assert means["κ_failure_rate"] == pytest.approx(2 / 3)
    assert means["imaginary_mode_rate"] == pytest.approx(1 / 3)
    assert means["spectrum_w1"] == 0.0


def test_the_modes_of_a_document() -> None:
    output = {
        "mode_kappa_w_per_m_k": {"rta": MODES / 2, "wigner": MODES},
        "frequencies_thz": FREQUENCIES,
        "q_weights": [1, 3],
    }
    crystal = mode_conductivity({}, output)
    assert crystal.kappa_w_per_m_k == 10.0
    assert conductivity_errors(crystal, REFERENCE).srme == 0.0


def test_documents_without_modes_keep_their_conductivity() -> None:
    summary = {"kappa_rta_w_per_m_k": 3.0, "kappa_wigner_w_per_m_k": 10.0, "temperature_kelvin": 300.0}
    assert mode_conductivity(summary, None) == ModeConductivity(10.0)
    earlier = mode_conductivity(
        summary, {"mode_kappa_w_per_m_k": None, "frequencies_thz": FREQUENCIES, "q_weights": [1, 3]}
    )
    errors = conductivity_errors(earlier, REFERENCE)
    assert (errors.srd, errors.failed) == (0.0, True)


def test_another_temperature_is_refused() -> None:
    with pytest.raises(InputError, match=r"at 900 K cannot be compared with DFT's at 300 K"):
        mode_conductivity({"temperature_kelvin": 900.0}, None)


def test_a_file_without_conductivities(tmp_path: Path) -> None:
    file = tmp_path / "kappas.json.gz"
    file.write_bytes(b"no gzip")
    with pytest.raises(InputError, match=r"kappas\.json\.gz: no reference conductivities"):
        read_reference_conductivities(file)


@pytest.mark.shared
def test_published_aggregates(shared_dir: Path) -> None:
    """All six aggregates of forty models, from the published rows, agree with their cards to the digits printed."""
    lines = [json.loads(line) for line in (shared_dir / "data/phonondb_103/kappa-103-analysis.jsonl").open()]
    dft = lines[0]["_base"]["kappa_dft"]
    cards = shared_dir / "data/matbench_discovery/models"
    for row in lines[1:]:
        published = yaml.safe_load((cards / f"{row['key']}.yml").read_text())["metrics"]["phonons"]["kappa_103"]
        errors = []
        for kappa, reference, srme, failed, imaginary, distance in zip(
            row["kappa_ml"], dft, row["srme"], row["srme_censored"], row["imag_modes"], row["freq_w1"], strict=True
        ):
            rest = conductivity_errors(ModeConductivity(kappa), ModeConductivity(reference, MODES))
            errors.append(
                ConductivityErrors(rest.srd, rest.sre, 2.0 if srme is None else srme, failed, bool(imaginary), distance)
            )
        means = conductivity_metrics(errors)
        for name, value in means.items():
            assert value == (None if published[name] is None else pytest.approx(published[name], abs=1e-4)), row["key"]


@pytest.mark.shared
def test_reference_of_the_103(shared_dir: Path) -> None:
    """The modes add up to kappa, 4 of 103 to no more than 0.1 %, and a reference against itself has no error."""
    reference = read_reference_conductivities(shared_dir / "data/phonondb_103/kappas_phononDB_PBE_noNAC.json.gz")
    assert len(reference) == 103
    for crystal in reference.values():
        assert crystal.mode_kappa_w_per_m_k is not None
        assert crystal.mode_kappa_w_per_m_k.sum() == pytest.approx(crystal.kappa_w_per_m_k, rel=1e-6)
    means = conductivity_metrics([conductivity_errors(crystal, crystal) for crystal in reference.values()])
    assert set(means.values()) == {0.0}
