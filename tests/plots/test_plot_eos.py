"""The energies and curves that are drawn are those of the document."""

from pathlib import Path

import numpy as np
import pytest

from esen_flows.errors import InputError
from esen_flows.physics.eos import birch_murnaghan, equation_of_state, evaluated
from esen_flows.plots.eos import plot_eos
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.eos import EosFitProtocol, EosOutput

VOLUMES = np.linspace(17.0, 23.5, 9)


def document_of(output: EosOutput, relaxation: ResultDocument) -> ResultDocument:
    content = {"kind": "eos", "output": output.model_dump(), "summary": output.summary()}
    return relaxation.model_copy(update=content)


class Relaxed:
    """As much of a relaxation as the fit reads."""

    def __init__(self, volume: float, energy: float) -> None:
        self.volume_per_atom_angstrom3, self.energy_per_atom_ev = volume, energy


@pytest.fixture
def output() -> EosOutput:
    energies = birch_murnaghan(VOLUMES, -5.25, 20.1, 0.58, 4.3)
    found = [Relaxed(*pair) for pair in zip(VOLUMES, energies, strict=True)]
    return equation_of_state(found, EosFitProtocol())  # type: ignore[arg-type]


def test_points_and_curves(relax_document, drawn, tmp_path: Path, output: EosOutput) -> None:
    path = plot_eos(document_of(output, relax_document()), tmp_path / "eos.png")
    assert path.stat().st_size > 5_000
    axes = drawn[0].axes[0]
    by_label = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(by_label["relaxed"].get_xdata(), VOLUMES)
    answer = output.fits["birch_murnaghan"]
    expected = 1000 * (output.energies_per_atom_ev - answer.energy_per_atom_ev)
    np.testing.assert_allclose(by_label["relaxed"].get_ydata(), expected)
    curve = by_label["Vinet"]
    energies = evaluated("vinet", output.fits["vinet"], curve.get_xdata()) - answer.energy_per_atom_ev
    np.testing.assert_allclose(curve.get_ydata(), 1000 * energies)
    assert "92.9 ±" in axes.get_title(loc="left")  # 0.58 eV/Angstrom^3
    assert set(by_label) >= {"relaxed", "Birch-Murnaghan", "Vinet"}


def test_another_kind_is_refused(relax_document, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shows a 'eos' document"):
        plot_eos(relax_document(), tmp_path / "eos.png")
