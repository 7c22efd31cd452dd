"""Formats of sources and their provenance."""

import hashlib
from typing import get_args

import ase.io
import pytest
from labelled_frames import labelled_frame

from esen_flows.data.dataset import from_structures
from esen_flows.data.folders import write_dataset
from esen_flows.data.sources.options import SourceOptions
from esen_flows.data.sources.read import detect_format, read_source, source_provenance
from esen_flows.data.sources.vocabulary import SourceFormat
from esen_flows.errors import InputError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.xyz", "extxyz"), ("a.extxyz.gz", "extxyz"), ("a.db", "ase-db"), ("a.aselmdb", "ase-lmdb"),
        ("MPtrj_2022.9_full.json", "mptrj"), ("SPICE-2.0.1.hdf5", "spice"), ("md.traj", "ase"),
        ("vasprun.xml-00007", "ase"), ("vasprun.xml.gz", "ase"), ("OUTCAR", "ase"), ("OUTCAR.gz", "ase"),
    ],
)  # fmt: skip
def test_formats_by_name(tmp_path, name, expected):
    (tmp_path / name).touch()
    assert detect_format(tmp_path / name) == expected
    assert expected in get_args(SourceFormat)


def test_unknown_formats_are_named(tmp_path):
    with pytest.raises(InputError, match="nothing at"):
        detect_format(tmp_path / "absent.db")
    with pytest.raises(InputError, match=r"no known format; name it: .* --format, one of extxyz, ase-db"):
        detect_format(tmp_path)
    (tmp_path / "a.xyz").touch()
    (tmp_path / "b.db").touch()
    with pytest.raises(InputError, match="holds files of the formats ase-db, extxyz; name it"):
        detect_format(tmp_path)
    assert list(read_source(tmp_path, "extxyz")) == []
    with pytest.raises(InputError, match="unknown format 'csv'; known: extxyz"):
        list(read_source(tmp_path, "csv"))


def test_provenance_names_every_file(tmp_path):
    (tmp_path / "s" / "sub").mkdir(parents=True)
    for name, energy in (("b.xyz", -1.0), ("sub/a.xyz", -2.0)):
        ase.io.write(tmp_path / "s" / name, labelled_frame(energy), format="extxyz")
    options = SourceOptions(group="g", stress_unit="-kBar")
    document = source_provenance(tmp_path / "s", options=options)
    assert [item.energy for item in read_source(tmp_path / "s")] == [-1.0, -2.0]
    assert (document["name"], document["format"]) == ("s", "extxyz")
    assert document["options"] == {"group": "g", "stress_unit": "-kBar"}
    assert document["units"]["stress"] == "-kBar"
    assert document["units"]["forces"] == "force in eV/Angstrom"
    assert [file["name"] for file in document["files"]] == ["b.xyz", "sub/a.xyz"]
    data = (tmp_path / "s" / "b.xyz").read_bytes()
    assert document["files"][0] == {
        "name": "b.xyz", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()
    }  # fmt: skip


def test_a_dataset_folder_is_a_source(tmp_path):
    ase.io.write(tmp_path / "a.xyz", [labelled_frame(-1.0), labelled_frame(-2.0)], format="extxyz")
    dataset = write_dataset(tmp_path / "d", read_source(tmp_path / "a.xyz"), provenance={"x": 1})
    assert from_structures(read_source(tmp_path / "d")).key == dataset.key
    document = source_provenance(tmp_path / "d")
    assert (document["key"], document["provenance"]) == (dataset.key, {"x": 1})
    with pytest.raises(InputError, match=r"leave out \['group'\]"):
        list(read_source(tmp_path / "d", options=SourceOptions(group="g")))
