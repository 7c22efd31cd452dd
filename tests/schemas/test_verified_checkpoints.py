"""Checkpoints whose tensors or headers are not those that their key was made of are refused before they answer."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esen_flows.errors import ModelError
from esen_flows.schemas import verified_checkpoints
from esen_flows.schemas.card import resolve_model
from esen_flows.schemas.verified_checkpoints import verified_header
from esen_flows.settings import get_settings

ROOT = Path(__file__).resolve().parents[2]
MODELS = {name: ROOT / "models" / name / f"{name}.safetensors" for name in ("esen_silicon", "esen_nano")}


@pytest.fixture(params=MODELS)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ESEN_FLOWS_CACHE_DIR", str(tmp_path / "cache"))
    get_settings.cache_clear()
    monkeypatch.setattr(verified_checkpoints, "_verified", {})
    return Path(shutil.copy(MODELS[request.param], tmp_path / "model.safetensors"))


def parts(path: Path) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Header, our part of it, and the bytes of the tensors."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    return header, json.loads(header["__metadata__"]["esen_flows"]), content[end:]


def rewrite(path: Path, header: dict[str, Any], ours: Any, tensors: bytes) -> None:
    header["__metadata__"]["esen_flows"] = ours if isinstance(ours, str) else json.dumps(ours)
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + tensors)


def test_the_key_is_that_of_the_content_and_hashed_once(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    check = verified_checkpoints._check_content
    monkeypatch.setattr(verified_checkpoints, "_check_content", lambda *a: (hashed.append(1), check(*a)))
    key = verified_header(checkpoint)["model_key"]
    assert resolve_model(checkpoint).key == key
    monkeypatch.setattr(verified_checkpoints, "_verified", {})  # another process
    assert resolve_model(checkpoint).key == key
    assert len(hashed) == 1
    os.utime(checkpoint, ns=(0, 0))
    resolve_model(checkpoint)
    assert len(hashed) == 2


def test_weights_that_were_changed_under_an_untouched_header_are_refused(checkpoint: Path) -> None:
    resolve_model(checkpoint)
    before = checkpoint.stat()
    header, ours, tensors = parts(checkpoint)
    for changed in (bytes(len(tensors)), tensors[:-4] + b"\1\2\3\4", tensors[4:] + tensors[:4]):
        rewrite(checkpoint, header, ours, changed)
        os.utime(checkpoint, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a careful copy does
        with pytest.raises(ModelError, match=r"does not match its own key \(header \w{12}, contents \w{12}\)"):
            resolve_model(checkpoint)
    rewrite(checkpoint, header, ours, tensors)
    assert resolve_model(checkpoint).key == ours["model_key"]


@pytest.mark.parametrize("bits", [b"\0\0\xc0\x7f", b"\0\0\x80\xff"])  # NaN, and minus infinity
def test_weights_that_are_not_finite_are_refused(checkpoint: Path, bits: bytes) -> None:
    header, ours, tensors = parts(checkpoint)
    rewrite(checkpoint, header, ours, tensors[:40] + bits + tensors[44:])
    with pytest.raises(ModelError, match="NaN or infinite weights"):
        resolve_model(checkpoint)


def change(**values: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda header, ours: ours.update(values)


def shape(header: dict[str, Any], ours: dict[str, Any]) -> None:
    next(entry for name, entry in header.items() if name != "__metadata__")["shape"] = [10**12, 10**12]


def kind(header: dict[str, Any], ours: dict[str, Any]) -> None:
    next(entry for name, entry in header.items() if name != "__metadata__")["dtype"] = "F8_E5M2"


def overlap(header: dict[str, Any], ours: dict[str, Any]) -> None:
    names = [name for name, entry in header.items() if name != "__metadata__" and entry["shape"] == [96]]
    for name in names[1:]:
        header[name]["data_offsets"] = header[names[0]]["data_offsets"]


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (change(scale_ev=0), "scale_ev of its header must be a positive number, got 0"),
        (change(scale_ev=float("nan")), "scale_ev of its header must be a positive number, got nan"),
        (change(scale_ev=-1.0), "scale_ev of its header must be a positive number"),
        (change(scale_ev=2.0), "does not match its own key"),
        (change(references_ev={"14": -5.0}), "does not match its own key"),
        (change(references_ev={"14": "x"}), "references_ev of its header must be finite energies"),
        (change(references_ev=[1]), "references_ev of its header must be finite energies"),
        (change(elements=[]), "elements of its header must be a list"),
        (change(elements=[14, 14]), "elements of its header must be a list of different"),
        (change(elements=[14.0]), "elements of its header must be a list"),
        (change(elements=[10**9]), "elements of its header must be a list"),
        (change(elements=list(range(1, 90))), "does not match its own key"),
        (change(model_key="5e" * 32), "does not match its own key"),
        (change(model_key=None), "model_key of its header must be 64 hexadecimal digits"),
        (change(model_key="../x"), "model_key of its header must be 64 hexadecimal digits"),
        (change(declaration={}), "must declare conservative and equivariance"),
        (change(declaration={"conservative": "no", "equivariance": "O3"}), "must declare conservative"),
        (change(declaration={"conservative": True, "equivariance": ["O3"]}), "must declare conservative"),
        (change(architecture={"direct_forces": True}), "must not call direct forces conservative"),
        (change(architecture=[]), "architecture of its header must be a mapping"),
        (change(training=3), "training of its header must be a mapping"),
        (change(format_version=[2]), "has format version"),
        (shape, "unreadable header"),
        (kind, "unreadable header"),
        (overlap, "leaves gaps|does not match its own key"),
    ],
)
def test_headers_that_lie_are_refused(checkpoint: Path, lie: Callable[..., None], words: str) -> None:
    from esen_flows.forcefield.checkpoint import load

    header, ours, tensors = parts(checkpoint)
    lie(header, ours)
    rewrite(checkpoint, header, ours, tensors)
    with pytest.raises(ModelError, match=words):
        resolve_model(checkpoint)
    with pytest.raises(ModelError):
        load(checkpoint)


@pytest.mark.parametrize("size", ["num_layers", "sphere_channels", "hidden_channels", "edge_channels", "lmax"])
@pytest.mark.parametrize("value", [7, 9_000, 10**12])
def test_networks_larger_than_their_file_are_refused_before_they_are_made(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, size: str, value: int
) -> None:
    from esen_flows.forcefield import checkpoint as module

    header, ours, tensors = parts(checkpoint)
    ours["architecture"][size] = value
    rewrite(checkpoint, header, ours, tensors)
    if size != "lmax" or value > 7:  # this network has other shapes, and about as many numbers
        monkeypatch.setattr(module, "make_network", None)
    with pytest.raises(ModelError, match="cannot be loaded"):
        module.load(checkpoint)


@given(place=st.integers(0, 20_000), value=st.integers(0, 255), cut=st.integers(0, 1) | st.integers(0, 200_000))
def test_no_change_of_a_byte_is_answered(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int, cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    content = bytearray(MODELS["esen_silicon"].read_bytes())
    content[place] = value
    path.write_bytes(content[: len(content) - cut])
    right = verified_header(MODELS["esen_silicon"])
    try:
        found = verified_header(path)
    except ModelError:
        return
    # What is left are changes of the notes of the training, which enter no result.
    notes = ("training", "declaration")
    assert {n: v for n, v in found.items() if n not in notes} == {n: v for n, v in right.items() if n not in notes}


def test_no_torch_is_imported_for_a_key() -> None:
    import subprocess

    code = (
        "import sys; from esen_flows.schemas.card import resolve_model; "
        "print(resolve_model(sys.argv[1]).key, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(MODELS["esen_silicon"])]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.split()[1] == "False"
