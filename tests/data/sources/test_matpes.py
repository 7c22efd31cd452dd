"""MatPES' JSON, as its description has it."""

import gzip
import json

import numpy as np
import pytest
from test_mptrj import CELL, site

from esen_flows.data.screening import BadRecord
from esen_flows.data.sources.options import SourceOptions
from esen_flows.data.sources.read import detect_format, read_source
from esen_flows.errors import InputError


def entry(number: int, **changes) -> dict:
    return {
        "matpes_id": f"matpes-{number}",
        "structure": {
            "@module": "pymatgen.core.structure", "@class": "Structure", "charge": 0,
            "lattice": {"matrix": CELL, "pbc": [True, True, True]},
            "sites": [site("Na", [0, 0, 0]), site("Cl", [0.5, 0.5, 0.5])],
        },
        "energy": -6.0 - number, "forces": [[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]],
        "stress": [16.0, 18.0, -32.0, 1.0, 2.0, 3.0], "bandgap": 5.0,
        **changes,
    }  # fmt: skip


def test_entries_with_units_sign_and_order(tmp_path):
    entries = [entry(1), entry(2, provenance={"original_mp_id": "mp-22862"}), entry(3, group="md", material="x")]
    (tmp_path / "m.json.gz").write_bytes(gzip.compress(json.dumps(entries, indent=1).encode()))
    assert detect_format(tmp_path / "m.json.gz") == "matpes"
    items = list(read_source(tmp_path / "m.json.gz"))
    assert [(i.energy, i.group, i.material) for i in items] == [(-7, "", ""), (-8, "", "mp-22862"), (-9, "md", "x")]
    first = items[0]
    np.testing.assert_allclose(first.atoms.positions, [[0, 0, 0], [2.8, 2.8, 2.8]])
    # xx, yy, zz, xy, yz, zx in kBar, positive under compression.
    expected = [[16.0, 1.0, 3.0], [1.0, 18.0, 2.0], [3.0, 2.0, -32.0]]
    np.testing.assert_allclose(first.stress * -1602.1766, expected, rtol=1e-7)
    (other, *_) = read_source(tmp_path / "m.json.gz", options=SourceOptions(stress_order="voigt", stress_unit="GPa"))
    np.testing.assert_allclose(other.stress[0] * 160.21766, [16.0, 3.0, 2.0], rtol=1e-7)


def test_broken_entries_are_named(tmp_path):
    broken = [
        entry(1, energy=None),
        entry(2, structure=[]),
        entry(3, structure={"lattice": {"matrix": CELL}, "sites": [site("Q", [0, 0, 0])]}),
        entry(4, forces=[["a", 1, 2]]),
        entry(5, stress=None),
        entry(6, stress=[1.0] * 7),
    ]
    (tmp_path / "m.json").write_text(json.dumps(broken))
    a, b, c, d, e, f = read_source(tmp_path / "m.json")
    assert a == BadRecord("matpes-1 of m.json", "no energy")
    assert {record.reason for record in (b, c, d, f)} == {"unreadable"}
    assert np.isnan(e.stress).all()


@pytest.mark.parametrize("text", ['[{"energy": 1}]', "[[1]]", '["structure"]'])
def test_other_arrays_are_refused(tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(InputError, match="entry 0 has no 'structure'; this is not MatPES' JSON"):
        list(read_source(tmp_path / "m.json"))


@pytest.mark.shared
def test_published_order_belongs_to_the_energies(shared_dir, tmp_path):
    from esen_flows.data.importing import import_sources

    path = shared_dir / "cases" / "data" / "matpes" / "matpes.json"
    assert len(import_sources([path], tmp_path / "d")) == 40
    with pytest.raises(InputError, match="they are in VASP's order: --stress-order vasp"):
        import_sources([path], tmp_path / "e", options=SourceOptions(stress_order="voigt"))
