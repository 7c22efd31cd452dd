"""`esen-flows models`: list, show, convert, pull."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from esen_flows.cli.app import main
from esen_flows.data.extxyz import write_labelled
from esen_flows.data.labelled import LabelledStructure
from esen_flows.forcefield.checkpoint import Checkpoint, save
from esen_flows.forcefield.families import make_network
from esen_flows.forcefield.load import load_force_field
from esen_flows.network.esen.config import ESENConfig
from esen_flows.schemas.card import resolve_model
from esen_flows.schemas.checkpoint_header import read_header


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["models", *arguments])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys)
    assert code == 0
    for words in ("esen_silicon", "esen_30m_oam", "to pull", "esen_3.2m_mp", "to train", "sevennet_l3i5"):
        assert words in out
    code, out, _ = run(capsys, "show", "esen_silicon")
    assert (code, "kappa_rta" in out) == (0, True)
    code, _, err = run(capsys, "show", "nothing")
    assert code == 1
    assert "known models: chgnet, emt, esen_3.2m_mp" in err
    assert "in .yaml" in err


def test_show_takes_the_path_of_a_calculator_card(capsys: pytest.CaptureFixture[str]) -> None:
    card = Path(__file__).parents[2] / "forcefield" / "third_party" / "fake_package" / "card.yaml"
    code, out, _ = run(capsys, "show", str(card))
    assert (code, "fake (calculator)" in out) == (0, True)
    code, out, _ = run(capsys, "show", str(card), "--json")
    assert json.loads(out)["key"] == resolve_model(card).key


def test_convert(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from published_files import first_generation, small_network

    content = first_generation(small_network())
    del content["config"], content["elementrefs"]
    torch.save(content, tmp_path / "esen.pt")
    file = str(tmp_path / "esen.pt")
    code, out, err = run(capsys, "convert", file)
    assert (code, out) == (1, "")
    assert "do not tell use_envelope, max_neighbors" in err
    options = ("--set", "use_envelope=true", "--set", "max_neighbors=0")
    code, _, err = run(capsys, "convert", file, *options)
    assert code == 1
    assert "give elements" in err
    code, out, _ = run(capsys, "convert", file, *options, "--elements", "Si,O")
    assert code == 0
    header = read_header(tmp_path / "esen.safetensors")
    assert header["model_key"] in out
    assert header["elements"] == [8, 14]
    assert header["declaration"] == {"conservative": True, "equivariance": "SO3", "differentiable": True}
    code, _, err = run(capsys, "convert", file, *options, "--elements", "Si,O")
    assert code == 2
    assert "exists" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "use_envelope"), "is not key=value"),
        (("--elements", "Si,Qq"), "'Qq' is not an element"),
        ((), "not a whole torch.save archive"),
        (("--output", "nowhere/esen.safetensors"), "no folder nowhere for --output"),
        (("--output", "esen.bin"), "does not end in .safetensors"),
    ],
)
def test_bad_input_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    (tmp_path / "esen.pt").write_text("not a checkpoint")
    code, out, err = run(capsys, "convert", str(tmp_path / "esen.pt"), *arguments)
    assert code in (1, 2)
    assert out == ""
    assert words in err
    assert list(tmp_path.iterdir()) == [tmp_path / "esen.pt"]


@pytest.mark.parametrize("file", ["", ".", "nowhere.pt"])
def test_a_missing_file_is_refused(capsys: pytest.CaptureFixture[str], file: str) -> None:
    code, _, err = run(capsys, "convert", file)
    assert code == 1
    assert "no file" in err


@pytest.fixture(name="place")
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an untrained network of copper, 100 rattled cells with labels, and crystals of copper and gold."""
    monkeypatch.chdir(tmp_path)
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    sizes = {"num_layers": 1, "lmax": 1, "mmax": 1, "sphere_channels": 4, "hidden_channels": 4, "edge_channels": 4}
    network = make_network(ESENConfig(**sizes, num_distance_basis=6, cutoff_angstrom=4.0))
    save(tmp_path / "own.safetensors", Checkpoint(network, 1.0, {29: 0.0}, (29,)))
    structures = []
    for seed in range(100):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=seed)
        structures.append(LabelledStructure(atoms, 0.0, np.zeros((4, 3)), np.zeros((3, 3))))
    write_labelled(tmp_path / "data.xyz", structures)
    write(tmp_path / "rattled.xyz", structures[0].atoms)
    write(tmp_path / "Au.cif", bulk("Au", cubic=True))
    return tmp_path


def test_calibrate_writes_what_a_card_says_and_names_surprises(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("calibrate", "own.safetensors", "--data", "data.xyz")
    code, out, err = run(capsys, *arguments, "--outside", "Au.cif", "--outside", "rattled.xyz")
    assert code == 0
    assert "it is used from now on" in out
    assert err.endswith("1 of 1 in rattled.xyz are not outside\n")
    assert load_force_field(place / "own.safetensors").calibration is not None
    code, out, _ = run(capsys, *arguments, "--inside", "rattled.xyz", "--output", "again.safetensors", "--json")
    found = json.loads(out)
    assert found["file"] == "again.safetensors"
    assert found["calibration"]["tests"][1] == {
        "structures": "rattled.xyz", "expected": "inside", "outside": 0, "of": 1
    }  # fmt: skip
    beyond = found["calibration"]["tests"][0]
    assert beyond["outside"] == 1  # of 100: the limit is the 99th percentile


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("own.safetensors", "--data", "data.xyz", "--outside", "no.cif"), "no such file: no.cif"),
        (("own.safetensors", "--data", "data.xyz:8"), "a structure counts once"),
        (("own.safetensors", "--data", "data.xyz", "--output", "no/own.safetensors"), "no folder no for --output"),
        (("own.safetensors", "--data", "data.xyz", "--output", "Au.cif"), "Au.cif exists"),
        (("emt", "--data", "data.xyz"), "'emt' is a force field of another package"),
        (("nequix_mp", "--data", "data.xyz"), "'nequix_mp' is a force field of another package"),
    ],
)
def test_calibrate_refuses_before_it_computes(
    arguments: tuple[str, ...], words: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(place.iterdir())
    code, _, err = run(capsys, "calibrate", *arguments)
    assert code != 0
    assert words in err
    assert "100/100" not in err
    assert sorted(place.iterdir()) == before
