"""Files of labels of any content: every record is used or listed, or the file is refused in one message."""

import gzip
import json
import os
import signal
import traceback
import warnings
from contextlib import suppress

import ase.io
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled_frames import labelled_frame
from test_matpes import entry
from test_spice import write
from test_vasp import step, vasprun

from esen_flows.data.labelled import LabelledStructure
from esen_flows.data.screening import BadRecord, Rejected, screened
from esen_flows.data.sources.read import read_source
from esen_flows.errors import InputError

# Pieces that break readers: numbers of every size, structure of the formats, and words of their headers.
PIECES = (
    "", "\n", " ", '"', "{", "}", "[", "]", "<", ">", "&x;", "</v>", "<scstep>", "nan", "inf", "-1", "0", "1e999",
    "10" * 9, "9" * 400, "Lattice=", "Properties=species:S:1:pos:R:3:forces:R:999999", "pbc=", "²", "\0", "é", "true",
    "stress=", 'virial="1 2 3 4 5 6 7 8 9"', "energy=x", "charge=1e9", "_JSON [", "move_mask:L:3", "Xx", "X", "null",
)  # fmt: skip


def use(path) -> None:
    """What an import does with a file, up to the records."""
    records: list[LabelledStructure | BadRecord] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ASE, about what it skips
        with suppress(InputError):
            records = list(screened(read_source(path), path.name))
            list(Rejected().keep(records))
    for record in records:
        if isinstance(record, LabelledStructure):
            assert record.forces.shape == (len(record.atoms), 3)
            assert np.isfinite(record.energy)


def mutated(draw, text: str) -> str:
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.sampled_from(PIECES)) + text[place + draw(st.integers(0, 30)) :]
    return text[: draw(st.just(len(text)) | st.integers(0, len(text)))]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "a.xyz"
    frame = labelled_frame()
    frame.info.update(group="g", charge=1, dft_virial=np.eye(3))
    ase.io.write(path, [labelled_frame(), frame], format="extxyz")
    return {
        "a.xyz": path.read_text(),
        "vasprun.xml": vasprun(step(-6.0, 9), step(-6.5, 2)),
        "m.json": json.dumps([entry(1), entry(2)]),
        "p.json": json.dumps({"mp-1": {"t": {**entry(1), "uncorrected_total_energy": -1.0, "force": [[0.0] * 3] * 2}}}),
    }


@pytest.mark.parametrize("name", ["a.xyz", "vasprun.xml", "m.json", "p.json"])
@given(data=st.data())
def test_mutated_text_files(texts, tmp_path_factory, name, data):
    path = tmp_path_factory.getbasetemp() / name
    path.write_text(mutated(data.draw, texts[name]), encoding="utf-8")
    use(path)


@pytest.mark.parametrize("name", ["a.xyz", "vasprun.xml", "m.json"])
@given(place=st.integers(0, 2000), value=st.binary(max_size=4), cut=st.just(0) | st.integers(0, 2000))
def test_mutated_compressed_files(texts, tmp_path_factory, name, place, value, cut):
    content = gzip.compress(texts[name].encode(), mtime=0)
    content = content[:place] + value + content[place + len(value) :]
    path = tmp_path_factory.getbasetemp() / f"{name}.gz"
    path.write_bytes(content[: max(0, len(content) - cut)])
    use(path)


@given(content=st.binary(max_size=200), name=st.sampled_from(["a.xyz", "OUTCAR", "a.traj", "a.json", "a.db", "a.h5"]))
def test_arbitrary_bytes(tmp_path_factory, content, name):
    path = tmp_path_factory.getbasetemp() / f"bytes_{name}"
    if name == "OUTCAR":
        path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    use(path)


@given(places=st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_mutated_hdf5(tmp_path_factory, places):
    path = tmp_path_factory.getbasetemp() / "mutated.h5"
    write(path)
    content = bytearray(path.read_bytes())
    for place, value in places:
        content[place % len(content)] = value
    path.write_bytes(content)
    # In a process of its own, because libhdf5 crashes at some of these files, now and then.
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            use(path)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, -signal.SIGSEGV, -signal.SIGABRT)
