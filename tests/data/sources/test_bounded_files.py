"""Compressed and hostile files of labels: bounded before memory is."""

import bz2
import gzip
import lzma
import re

import ase.io
import pytest
from labelled_frames import labelled_frame

from esen_flows.data.screening import Rejected
from esen_flows.data.sources import bounded_files
from esen_flows.data.sources.read import read_source
from esen_flows.errors import InputError

COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_files_are_read_and_cut_ones_are_bad(tmp_path, suffix):
    ase.io.write(tmp_path / "a.xyz", [labelled_frame()] * 3, format="extxyz")
    path = tmp_path / f"b.xyz{suffix}"
    path.write_bytes(COMPRESS[suffix]((tmp_path / "a.xyz").read_bytes()))
    assert [item.energy for item in read_source(path)] == [-7.25] * 3
    ase.io.write(tmp_path / "a.xyz", [labelled_frame(-1.0 - 1 / n) for n in range(1, 600)], format="extxyz")
    whole = COMPRESS[suffix]((tmp_path / "a.xyz").read_bytes())
    path.write_bytes(whole[: -len(whole) // 5])
    *kept, bad = read_source(path)
    assert suffix == ".bz2" or len(kept) > 100  # bzip2 decompresses blocks of 900,000 bytes
    assert bad.reason == "the file ends in the middle or is damaged"


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", ["bomb.xyz", "vasprun.xml", "OUTCAR", "bomb.json", "bomb.traj"])
def test_bombs_are_refused(tmp_path, monkeypatch, name, suffix):
    monkeypatch.setattr(bounded_files, "ALWAYS_ALLOWED", 1 << 16)
    text = {"bomb.xyz": b"1\n" + b" " * 1_000_000 + b"\nH 0 0 0\n", "bomb.json": b"[" + b" " * 1_000_000}
    (tmp_path / f"{name}{suffix}").write_bytes(COMPRESS[suffix](text.get(name, b" " * 1_000_000)))
    with pytest.raises(InputError, match=r"becomes more than 200 times its size .* decompress it yourself"):
        list(read_source(tmp_path / f"{name}{suffix}"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("100000000\n\nH 0 0 0\n", "says 100000000 atoms and has 1 lines of them"),
        ("²\n\nH 0 0 0\n", "expected a number of atoms, got '²'"),
        ("99999999999999999999\n\n", "expected a number of atoms"),
        ("-1\n\n", "expected a number of atoms"),
    ],
)
def test_counts_of_atoms_are_checked_against_the_file(tmp_path, text, reason):
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises(InputError, match=re.escape(reason)):
        list(Rejected("fail").keep(read_source(tmp_path / "a.xyz")))


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded_files, "LONGEST_LINE", 1000)
    (tmp_path / "a.xyz").write_text("1\n" + "x" * 5000 + "\nH 0 0 0\n")
    with pytest.raises(InputError, match="line 2 has more than 1000 characters"):
        list(read_source(tmp_path / "a.xyz"))
