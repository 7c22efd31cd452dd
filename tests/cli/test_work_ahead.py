"""Work is told before it begins, and work of unusual size needs --yes."""

from pathlib import Path
from typing import Any

import pytest
from command_line import run

from esen_flows.cli.property_request import build_request
from esen_flows.cli.work_ahead import describe_work
from esen_flows.errors import InputError
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod


def request_of(*settings: str) -> Any:
    return build_request("phonon", Path("Cu.cif"), "emt", list(settings), None, "cpu")


def test_supercells_are_announced(folder: Path, store: Store) -> None:
    request = request_of("displacement.fc2_supercell=3,3,3")
    words = describe_work(request, {"forces", "phonon"}, store, yes=False)
    assert words.startswith("to compute: about 1 supercell of 108 atoms (second order); no earlier result")
    assert describe_work(request, {"phonon"}, store, yes=False) == ""  # the forces are stored


def test_a_supercell_of_unusual_size_needs_a_confirmation(folder: Path, store: Store) -> None:
    request = request_of("displacement.fc2_supercell=20,20,20")
    with pytest.raises(InputError, match=r"32000 atoms .* more than 5000 atoms in a supercell .* confirm with --yes"):
        describe_work(request, {"forces"}, store, yes=False)
    assert "32000 atoms" in describe_work(request, {"forces"}, store, yes=True)


def test_the_command_refuses_before_it_computes(copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls = copper.force_field.force_evaluations
    big = ("--set", "displacement.fc2_supercell=20,20,20")
    assert run("phonon", "Cu.cif", "--model", copper.checkpoint, *big) == 1
    assert "confirm with --yes" in capsys.readouterr().err
    assert copper.force_field.force_evaluations == calls
