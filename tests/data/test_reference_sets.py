"""Reference sets: found, pulled from a server of our own, pinned, verified; and the table itself."""

import hashlib
import shutil
import threading
from fnmatch import fnmatch
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from esen_flows.cli.app import main
from esen_flows.data.download import DownloadError
from esen_flows.data.reference_sets.files import find, pull, read_pins, verify
from esen_flows.data.reference_sets.table import REFERENCE_SETS, ReferenceFile, ReferenceSet
from esen_flows.errors import InputError
from esen_flows.settings import get_settings

CURVES, FIRST, SECOND = b"curves of diatomics", b"first phonons", b"second phonons"


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder, and lists it."""

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The folder of a server, and its address."""
    folder = tmp_path_factory.mktemp("served")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def sets(served, monkeypatch):
    """Three sets of the server: a file with a digest, one without, and a folder that the server lists."""
    folder, url = served
    for name, content in {
        "d.json.gz": CURVES,
        "md22_a.npz": FIRST,
        "mp-1.yaml.bz2": FIRST,
        "mp-22.yaml.bz2": SECOND,
    }.items():
        (folder / name).write_bytes(content)
    digest = hashlib.md5(CURVES, usedforsecurity=False).hexdigest()
    page = "https://example.org/page"
    for name, each in {
        "diatomics": ReferenceSet(
            "t", "l", "d*.json.gz", (ReferenceFile("d.json.gz", f"{url}d.json.gz", page, digest),)
        ),
        "md22": ReferenceSet("t", "l", "md22_*.npz", (ReferenceFile("md22_a.npz", f"{url}md22_a.npz"),)),
        "mdr": ReferenceSet("t", "l", "mp-*.yaml.bz2", listing=url),
    }.items():
        monkeypatch.setitem(REFERENCE_SETS, name, each)
    return folder


def test_the_first_download_is_pinned(sets, tmp_path):
    assert pull("md22", tmp_path) == [tmp_path / "md22/md22_a.npz"]
    assert read_pins(tmp_path / "md22")["md22_a.npz"]["sha256"] == hashlib.sha256(FIRST).hexdigest()
    assert list(verify("md22", tmp_path)) == []
    (tmp_path / "md22/md22_a.npz").write_bytes(FIRST[::-1])
    (fault,) = verify("md22", tmp_path)
    assert "md22_a.npz: has sha256" in str(fault)
    (tmp_path / "md22/md22_a.npz").unlink()
    (missing,) = verify("md22", tmp_path)
    assert str(missing).endswith("md22/md22_a.npz: missing; run: esen-flows data pull md22")
    (sets / "md22_a.npz").write_bytes(SECOND)
    with pytest.raises(DownloadError, match="has sha256"):  # the server has another file now
        pull("md22", tmp_path)
    assert find("md22", tmp_path) == []


def test_a_folder_that_the_server_lists(sets, tmp_path):
    seen = []
    found = pull("mdr", tmp_path, lambda name: seen.append(name) or (lambda done, total: None))
    assert [path.name for path in found] == seen == ["mp-1.yaml.bz2", "mp-22.yaml.bz2"]
    found[0].unlink()
    assert [fault.file.name for fault in verify("mdr", tmp_path)] == ["mp-1.yaml.bz2"]
    assert pull("mdr", tmp_path, lambda name: seen.append(name)) == found
    assert seen[2:] == ["mp-1.yaml.bz2"]  # the other one was there


def test_files_that_a_user_has(sets, tmp_path):
    own = tmp_path / "benchmarks/figures/d-2026.json.gz"
    own.parent.mkdir(parents=True)
    own.write_bytes(CURVES)
    assert find("diatomics", tmp_path) == pull("diatomics", tmp_path) == [own]
    assert list(verify("diatomics", tmp_path)) == []
    own.write_bytes(CURVES + b"more")
    (fault,) = verify("diatomics", tmp_path)
    assert fault.file == own
    assert "has md5" in fault.reason
    with pytest.raises(InputError, match=r"no reference set 'diatomic'; there are wbm, "):
        find("diatomic", tmp_path)


def test_without_a_network(monkeypatch, tmp_path):
    closed = ReferenceFile("d.json.gz", "http://127.0.0.1:9/d.json.gz", "https://example.org/page")
    monkeypatch.setitem(REFERENCE_SETS, "diatomics", ReferenceSet("t", "l", "d*.json.gz", (closed,)))
    monkeypatch.setitem(REFERENCE_SETS, "mdr", ReferenceSet("t", "l", "mp-*.bz2", listing="http://127.0.0.1:9/"))
    by_hand = rf"By hand: get d\.json\.gz from https://example\.org/page and put it at {tmp_path}/diatomics/d\.json\.gz"
    with pytest.raises(DownloadError, match=rf"cannot be fetched: .*{by_hand}, or set ESEN_FLOWS_REFERENCE_DIR"):
        pull("diatomics", tmp_path)
    with pytest.raises(DownloadError, match=rf"get the files mp-\*\.bz2 from http://127\.0\.0\.1:9/ .* {tmp_path}/mdr"):
        pull("mdr", tmp_path)


def run(*arguments):
    """Exit status of a command."""
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return end.value.code or 0


def test_commands(sets, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ESEN_FLOWS_REFERENCE_DIR", str(tmp_path))
    get_settings.cache_clear()
    assert not run("data", "pull", "diatomics", "mdr")
    out = capsys.readouterr().out
    assert f"diatomics is at {tmp_path}/diatomics/d.json.gz" in out
    assert f"mdr is at {tmp_path}/mdr, 2 files" in out
    assert not run("data", "list")
    rows = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()}
    assert (rows["diatomics"], rows["mdr"], rows["md22"], rows["wbm"]) == ("yes", "2", "no", "no")
    assert not run("data", "list", "diatomics")
    assert "from https://example.org/page, md5 " in capsys.readouterr().out
    assert not run("data", "verify")
    assert f"3 files in {tmp_path} were read; 0 are missing or damaged" in capsys.readouterr().out
    shutil.copy(tmp_path / "mdr/mp-1.yaml.bz2", tmp_path / "mdr/mp-3.yaml.bz2")
    assert not run("data", "verify")
    assert "not verified: 1 file(s) without a published digest" in capsys.readouterr().out
    (tmp_path / "mdr/mp-3.yaml.bz2").unlink()
    (tmp_path / "mdr/mp-1.yaml.bz2").write_bytes(b"cut")
    assert run("data", "verify") == 1
    assert "mp-1.yaml.bz2: has 3 bytes, the first downloaded file has 13" in capsys.readouterr().out
    assert run("data", "verify", "md22") == 1
    assert "md22_a.npz: missing" in capsys.readouterr().out
    assert run("data", "pull", "nothing") == 1
    assert "no reference set 'nothing'" in capsys.readouterr().err


def test_entries_find_their_own_files():
    for name, each in REFERENCE_SETS.items():
        assert bool(each.files) != bool(each.listing), name
        assert all(fnmatch(file.name, each.pattern) for file in each.files), name
        assert each.licence, name
        assert each.address.startswith("http"), name
        others = [other.pattern for known, other in REFERENCE_SETS.items() if known != name]
        assert not [pattern for pattern in others for file in each.files if fnmatch(file.name, pattern)], name


@pytest.mark.shared
def test_real_files(shared_dir: Path) -> None:
    """What is published with a digest has it; PhononDB's files there are those of another collection."""
    root = shared_dir / "data"
    here = {name for name in REFERENCE_SETS if find(name, root)}
    assert here == {"wbm-symmetry-1e-2", "mp-elements", "phonondb-103", "phonondb-103-kappa", "mdr", "diatomics"}
    faults = [fault.file.parent.name for name in sorted(here) for fault in verify(name, root)]
    assert faults == ["phonondb_103", "phonondb_103"]
