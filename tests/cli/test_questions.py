from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write

from esen_flows.cli.questions import ask
from esen_flows.errors import NotDifferentiableError

AUTODIFF = ["displacement.force_constants=autodiff"]


@pytest.fixture
def silicon(tmp_path: Path) -> Path:
    write(tmp_path / "Si.cif", bulk("Si", "diamond", a=5.47))
    return tmp_path / "Si.cif"


@pytest.mark.parametrize("kind", ["phonon", "conductivity"])
def test_autodiff_is_a_setting_of_the_forces(silicon: Path, header_only_checkpoint: Path, kind: str) -> None:
    plain, exact = (ask(kind, silicon, str(header_only_checkpoint), set_, None, "cpu") for set_ in ([], AUTODIFF))
    assert exact.protocol.displacement.force_constants == "autodiff"
    assert plain.steps[0].key == exact.steps[0].key  # one relaxation serves both
    assert all(one.key != other.key for one, other in zip(plain.steps[1:], exact.steps[1:], strict=True))


def test_autodiff_by_a_foreign_force_field_is_refused_at_once(silicon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esen_flows.schemas.card.version", lambda package: "0.13.0")
    ask("phonon", silicon, "sevennet_l3i5", [], None, "cpu")
    with pytest.raises(NotDifferentiableError, match="use force_constants=finite_displacement"):
        ask("phonon", silicon, "sevennet_l3i5", AUTODIFF, None, "cpu")
