"""Convergence studies against a real server: points are ordinary results, shared and never computed twice."""

from pathlib import Path
from typing import Any

import pytest

from esen_flows.cli.app import main
from esen_flows.cli.converge import parsed
from esen_flows.cli.overrides import UsageError

pytestmark = pytest.mark.mongod


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def study(copper: Any, *vary: str) -> int:
    sets = ("relax.fmax_ev_per_angstrom=0.01", "displacement.fc2_supercell=2,2,2", "displacement.fc3_supercell=1,1,1")
    assignments = [text for one in sets for text in ("--set", one)]
    varied = [text for one in vary for text in ("--vary", one)]
    base = ("kappa", "Cu.cif", "--model", copper.checkpoint, "--set", "mesh=5,5,5", *assignments)
    return run("converge", *base, *varied, "-o", "study")


def test_meshes_share_forces_and_a_second_study_computes_nothing(copper: Any, folder: Path, capsys) -> None:
    assert study(copper, "mesh=3:5") == 0
    table = capsys.readouterr().out
    assert "kappa_rta_w_per_m_k (W/m/K)" in table
    assert "5 (base)" in table
    assert (folder / "study" / "converge_kappa.png").exists()
    calls = copper.force_field.force_evaluations
    assert calls > 0
    assert study(copper, "mesh=3:4:5") == 0
    assert copper.force_field.force_evaluations == calls
    assert study(copper, "displacement.displacement_angstrom=0.03:0.02") == 0
    assert copper.force_field.force_evaluations > calls


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cutoff", "give its values, cutoff=V1:V2, or take one of mesh, displacement_angstrom"),
        ("mesh=9", "at least two values"),
    ],
)
def test_unclear_choices_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parsed(text, "kappa")


def test_a_field_by_its_short_name_has_default_values() -> None:
    assert parsed("displacement_angstrom", "phonon")[0] == "displacement.displacement_angstrom"


@pytest.mark.parametrize("vary", ["dtype=half:double", "nonsense=1:2"])
def test_what_cannot_be_varied_is_said_before_anything_is_computed(copper: Any, folder: Path, capsys, vary) -> None:
    calls = copper.force_field.force_evaluations
    assert study(copper, vary) == 2
    assert vary.partition("=")[0] in capsys.readouterr().err
    assert copper.force_field.force_evaluations == calls
