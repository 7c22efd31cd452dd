"""MPtrj's JSON, as its description has it."""

import json

import numpy as np
import pytest

from esen_flows.data.screening import BadRecord
from esen_flows.data.sources import json_stream, mptrj
from esen_flows.data.sources.options import SourceOptions
from esen_flows.data.sources.read import read_source
from esen_flows.errors import InputError

CELL = [[0.0, 2.8, 2.8], [2.8, 0.0, 2.8], [2.8, 2.8, 0.0]]


def site(element: str, abc: list[float], occu: float = 1) -> dict:
    xyz = (np.array(abc) @ CELL).tolist()
    return {"species": [{"element": element, "occu": occu}], "abc": abc, "xyz": xyz, "label": element, "properties": {}}


def entry(energy: float, **changes) -> dict:
    return {
        "structure": {
            "@module": "pymatgen.core.structure", "@class": "Structure", "charge": None,
            "lattice": {"matrix": CELL, "a": 3.96, "volume": 43.9},
            "sites": [site("Na", [0, 0, 0]), site("Cl", [0.5, 0.5, 0.5])],
        },
        "uncorrected_total_energy": energy, "corrected_total_energy": energy - 0.5, "energy_per_atom": -3.4,
        "force": [[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]],
        "stress": [[16.0, 1.0, 0.0], [1.0, 16.0, 0.0], [0.0, 0.0, -32.0]],
        "magmom": None, "bandgap": 5.0,
        **changes,
    }  # fmt: skip


def write(path, **materials) -> None:
    path.write_text(json.dumps(materials))


def test_frames_with_units_and_sign(tmp_path):
    write(tmp_path / "m.json", **{"mp-1": {"t-0-0": entry(-6.75), "t-0-1": entry(-6.5)}, "mp-2": {"s-0-0": entry(-1)}})
    items = list(read_source(tmp_path / "m.json"))
    assert [(item.energy, item.material) for item in items] == [(-6.75, "mp-1"), (-6.5, "mp-1"), (-1.0, "mp-2")]
    first = items[0]
    assert first.atoms.numbers.tolist() == [11, 17]
    np.testing.assert_allclose(first.atoms.positions, [[0, 0, 0], [2.8, 2.8, 2.8]])
    np.testing.assert_array_equal(first.atoms.cell.array, CELL)
    assert first.atoms.pbc.all()
    assert first.atoms.info == {}
    np.testing.assert_array_equal(first.forces, [[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]])
    # 16 kBar that VASP prints as positive are a compressed cell: -1.6 GPa under tension, and 1 eV/A^3 is 160.2 GPa.
    np.testing.assert_allclose(np.diag(first.stress), [-0.00998641, -0.00998641, 0.01997283], rtol=1e-6)
    (corrected, *_) = read_source(tmp_path / "m.json", options=SourceOptions(energy_key="corrected_total_energy"))
    assert corrected.energy == -7.25


def test_bad_frames_are_named(tmp_path):
    mixed = entry(-1.0)
    mixed["structure"]["sites"][0] = site("Na", [0, 0, 0], occu=0.5)
    unknown = entry(-1.0)
    unknown["structure"]["sites"][0] = site("Qq", [0, 0, 0])
    frames = {"a": entry(-1, uncorrected_total_energy=None), "b": mixed, "c": unknown}
    frames |= {"d": entry(-1.0, force=None), "e": entry(-1, stress=None)}
    write(tmp_path / "m.json", **{"mp-1": frames, "mp-2": {}})
    a, b, c, d, e = read_source(tmp_path / "m.json")
    assert a == BadRecord("a of mp-1 in m.json", "no energy")
    assert (b.reason, b.found) == ("unreadable", "ValueError: a site is occupied to 0.5")
    assert c.reason == "unreadable"
    assert "Qq" in c.found
    assert d.reason == "no forces"
    assert np.isnan(e.stress).all()


@pytest.mark.parametrize("piece", [1, 7, 64, 1000, 1 << 22])
def test_pieces_of_any_size_give_the_same(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(json_stream, "_PIECE", piece)
    materials = {f"mp-{m}": {f"t-{f}": entry(-m - f / 8) for f in range(m)} for m in range(4)}
    (tmp_path / "m.json").write_text(json.dumps(materials, indent=2))
    read = [(item.material, item.energy) for item in read_source(tmp_path / "m.json")]
    assert read == [(m, e["uncorrected_total_energy"]) for m, frames in materials.items() for e in frames.values()]


def test_memory_is_that_of_a_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "_PIECE", 1 << 12)
    write(tmp_path / "m.json", **{f"mp-{m}": {"t": entry(-1.0)} for m in range(200)})
    longest = 0

    class Watched(json_stream.JsonStream):
        def value(self):
            nonlocal longest
            longest = max(longest, len(self._text))
            return super().value()

    monkeypatch.setattr(mptrj, "JsonStream", Watched)
    assert sum(1 for _ in read_source(tmp_path / "m.json")) == 200
    assert longest < 3 * (1 << 12) < (tmp_path / "m.json").stat().st_size / 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "expected a string, an array or an object at character 1"),
        ('[{"energy": 1}]', "entry 0 has no 'structure'; this is not MatPES' JSON"),
        ('{"mp-1": ' + "[" * 100_000, "expected one of '{', got '\\[' at character 9"),
        ('{"mp-1": {"t": ' + "[" * 100_000, "nested too deeply at character 15"),
        ('{"mp-1": {"t": 5}}', "expected a string, an array or an object at character 15"),
        ('{"mp-1": {"t": {"energy": 1}}}', "the entry mp-1/t has no 'structure'; .* give --format ase-db"),
    ],
)
def test_other_json_is_refused(tmp_path, text, message):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(InputError, match=message):
        list(read_source(tmp_path / "m.json"))


@pytest.mark.parametrize(
    ("cut", "message"),
    [('"sites"', "Expecting property name"), ("}}}", "expected one of ',}', got 'the end' at character")],
)
def test_frames_before_the_end_of_a_cut_file_are_kept(tmp_path, cut, message):
    text = json.dumps({"mp-1": {"a": entry(-1.0), "b": entry(-2.0)}})
    (tmp_path / "m.json").write_text(text[: text.rindex(cut) + (1 if cut == "}}}" else 0)])
    *whole, bad = read_source(tmp_path / "m.json")
    assert [item.energy for item in whole] == ([-1.0] if cut == '"sites"' else [-1.0, -2.0])
    assert bad.reason == "the file ends in the middle or is damaged"
    assert message in bad.found


def test_the_rest_is_not_read_after_a_broken_frame(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "_PIECE", 100)
    monkeypatch.setattr(json_stream, "_LONGEST", 1000)
    good = json.dumps({"mp-1": {"t": entry(-1.0)}})
    (tmp_path / "m.json").write_text(good.replace('"sites": [', '"sites": ?[') + " " * 100_000)
    with pytest.raises(InputError, match="download it again"):
        list(read_source(tmp_path / "m.json"))
