"""The fine-tuned model has the errors that its card states, on the frames that were held out."""

import io
import json
import tarfile

import ase.io
import numpy as np
import pytest

from esen_flows import load_force_field
from esen_flows.assets import asset_dir
from esen_flows.schemas.card import read_card, resolve_model


def test_the_card_names_the_model():
    card = read_card("esen_silicon_dft")
    assert resolve_model("esen_silicon_dft").key == card.checkpoint.model_key
    assert card.training["parent_model_key"] == read_card("esen_silicon").checkpoint.model_key


@pytest.mark.shared
def test_forces_on_the_frames_that_were_held_out(shared_dir):
    held_out = json.loads((asset_dir("models") / "esen_silicon_dft/split.json").read_text())["validation"]
    assert len(held_out) == 21
    frames = []
    with tarfile.open(shared_dir / "data/phono3py/Si-PBE/vasprun_xmls.tar.lzma", "r:xz") as archive:
        names = sorted(m.name for m in archive if m.name.endswith(".xml"))
        for name in [names[number] for number in held_out[::3]]:
            text = archive.extractfile(name).read().decode()
            frames.append(ase.io.read(io.StringIO(text), format="vasp-xml", index=-1))
    results = load_force_field("esen_silicon_dft").evaluate(frames)
    errors = np.concatenate([(r.forces - a.get_forces()).ravel() for r, a in zip(results, frames, strict=True)])
    promised = next(m for m in read_card("esen_silicon_dft").measured if m.property == "held-out force RMSE, DFT")
    assert promised.unit == "meV/Angstrom"
    assert 1000 * np.sqrt(np.mean(errors**2)) < 1.3 * promised.value
