"""Convergence studies against a real server: points are ordinary results, shared and never computed twice."""

from pathlib import Path
from typing import Any

import pytest
from command_line import run

from esen_flows.cli.commands.converge import parse_choice
from esen_flows.cli.usage import UsageError

pytestmark = [pytest.mark.mongod, pytest.mark.usefixtures("quick_figures")]


SETS = (
    "relax.fmax_ev_per_angstrom=0.01", "displacement.fc2_supercell=2,2,2", "displacement.fc3_supercell=2,2,2",
    "mesh=5,5,5",
)  # fmt: skip
BASE = ("Cu.cif", *(text for one in SETS for text in ("--set", one)))


def study(copper: Any, *vary: str, options: tuple[str, ...] = ("-o", "study")) -> int:
    varied = [text for one in vary for text in ("--vary", one)]
    return run("converge", "kappa", *BASE, "--model", copper.checkpoint, *varied, *options)


def test_meshes_share_forces_and_a_second_study_computes_nothing(copper: Any, folder: Path, capsys) -> None:
    assert study(copper, "mesh=3:5") == 0
    table = capsys.readouterr().out
    assert "kappa RTA, 300 K (W/m/K)" in table
    assert "5 (base)" in table
    assert (folder / "study" / "converge_kappa.png").exists()
    calls = copper.force_field.force_evaluations
    assert calls > 0
    assert study(copper, "mesh=3:4:5") == 0
    assert copper.force_field.force_evaluations == calls
    assert study(copper, "displacement.displacement_angstrom=0.03:0.02") == 0
    assert copper.force_field.force_evaluations > calls


def test_a_study_without_relaxation_times_looks_at_its_own_method(copper: Any, folder: Path, capsys) -> None:
    assert study(copper, "mesh=3:5", options=("--set", "methods=wigner", "-o", "study")) == 0
    assert "kappa Wigner, 300 K (W/m/K)" in capsys.readouterr().out
    calls = copper.force_field.force_evaluations
    assert run("kappa", *BASE, "--model", copper.checkpoint, "--set", "methods=wigner", "-o", "one") == 0
    assert copper.force_field.force_evaluations == calls
    assert (folder / "one" / "mean_free_paths.png").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cutoff", "give its values, cutoff=V1:V2, or choose one of mesh, displacement_angstrom"),
        ("mesh=9", "give at least two values"),
    ],
)
def test_incomplete_choices_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_choice(text, "kappa")


def test_a_field_by_its_short_name_has_default_values() -> None:
    assert parse_choice("displacement_angstrom", "phonon")[0] == "displacement.displacement_angstrom"


@pytest.mark.parametrize("vary", ["dtype=half:double", "nonsense=1:2"])
def test_wrong_choices_are_refused_before_anything_is_computed(copper: Any, folder: Path, capsys, vary) -> None:
    calls = copper.force_field.force_evaluations
    assert study(copper, vary) == 2
    assert f"--vary {vary.partition('=')[0]}" in capsys.readouterr().err
    assert copper.force_field.force_evaluations == calls


def test_a_protocol_of_kappa_is_no_base_for_phonons(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("converge", "phonon", "Cu.cif", "--model", "emt", "--protocol", "phonondb-v1") == 1
    assert "no protocol 'phonondb-v1' of the property phonon; there are general, mdr" in capsys.readouterr().err


def test_a_study_is_submitted_and_drawn_later(copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls = copper.force_field.force_evaluations
    assert study(copper, "mesh=3:5", options=("--submit",)) == 0
    launchpad = copper.store.database.database_name
    assert f"2 points; submitted to launchpad {launchpad}: fireworks 3, 2, 1, 6, 5, 4" in capsys.readouterr().out
    assert study(copper, "mesh=5:3", options=("--submit",)) == 0
    assert "2 points; nothing added: submitted before" in capsys.readouterr().out
    assert copper.force_field.force_evaluations == calls
    assert study(copper, "mesh=3:5") == 0
    assert study(copper, "mesh=3:5", options=("--submit",)) == 0
    assert "2 points; nothing added: every result is stored" in capsys.readouterr().out


def test_a_submitted_study_draws_nothing(copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study(copper, "mesh=3:5", options=("--submit", "-o", "study")) == 2
    assert "without --submit draws" in capsys.readouterr().err


def test_points_that_failed_for_good_are_reported_and_left_out(
    copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study(copper, "relax.max_steps=1:50") == 0
    assert "NotConvergedError" in capsys.readouterr().err
    assert study(copper, "relax.max_steps=1:50", options=("--submit",)) == 0
    captured = capsys.readouterr()
    assert "2 points; nothing added: every result is stored" in captured.out
    assert "failed before: NotConvergedError" in captured.err
