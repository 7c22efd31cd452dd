"""`esen-flows models`: list, show, convert, pull."""

import json
from pathlib import Path

import pytest

from esen_flows.cli.app import main
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
