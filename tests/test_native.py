"""C++ files that are compiled once, or not at all."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from esen_flows import native
from esen_flows.native import NativeSource

SOURCE = NativeSource(
    "half", b'extern "C" double half(double x) { return x / 2; }', "halving takes twice as long", functions=("half",)
)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The state of a new process with an empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.load.cache_clear()
    yield
    native.load.cache_clear()


def test_compiled_code_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("ESEN_FLOWS_NATIVE", "off")
    assert native.status(SOURCE).startswith("off")
    assert native.load(SOURCE) is None
    assert not caplog.text


@pytest.mark.parametrize("compiler", ["/nowhere/g++", "false"])
def test_without_a_working_compiler_the_reason_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, compiler: str
) -> None:
    monkeypatch.setenv("CXX", compiler)
    assert native.load(SOURCE) is None
    assert native.load(SOURCE) is None
    assert caplog.text.count("without its compiled half, so that halving takes twice as long") == 1


def test_a_library_is_compiled_once() -> None:
    if native.status(SOURCE).startswith("no C++ compiler"):
        pytest.skip(native.status(SOURCE))
    assert "at the first use" in native.status(SOURCE)
    library = native.compiled(SOURCE)
    assert native.status(SOURCE) == str(library)
    made = library.stat().st_mtime_ns
    assert native.compiled(SOURCE) == library
    assert library.stat().st_mtime_ns == made
    assert [file.name for file in library.parent.iterdir()] == [library.name]
    assert native.load(SOURCE) is native.load(SOURCE)


def _needs_a_compiler() -> None:
    if native.status(SOURCE).startswith("no C++ compiler"):
        pytest.skip(native.status(SOURCE))


def _halves(library: ctypes.CDLL | None) -> float:
    assert library is not None
    library.half.restype = ctypes.c_double
    return float(library.half(ctypes.c_double(3.0)))


def test_a_folder_that_others_may_write_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    _needs_a_compiler()
    library = native.compiled(SOURCE)
    library.parent.chmod(0o777)
    assert native.load(SOURCE) is None
    assert "others may write it (mode 0777); run: chmod go-w" in caplog.text


def test_a_link_is_not_a_folder_for_libraries(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _needs_a_compiler()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "esen_flows").mkdir()
    (tmp_path / "esen_flows" / "kernels").symlink_to(tmp_path / "elsewhere")
    assert native.load(SOURCE) is None
    assert "it is a link" in caplog.text


def test_a_library_that_others_may_write_is_compiled_again() -> None:
    _needs_a_compiler()
    library = native.compiled(SOURCE)
    library.write_bytes(b"not what was compiled")
    library.chmod(0o666)
    assert _halves(native.load(SOURCE)) == 1.5
    assert library.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", [b"", b"\x7fELF and no more", None])
def test_a_library_that_is_damaged_or_lacks_a_function_is_compiled_again(content: bytes | None) -> None:
    _needs_a_compiler()
    library = native.compiled(SOURCE)
    if content is None:  # an intact library without the function
        other = NativeSource("other", b'extern "C" double third(double x) { return x / 3; }', "", ("third",))
        content = native.compiled(other).read_bytes()
    library.write_bytes(content)
    assert _halves(native.load(SOURCE)) == 1.5


def test_a_source_without_its_function_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    _needs_a_compiler()
    source = NativeSource("half", SOURCE.text, "halving takes twice as long", functions=("half", "quarter"))
    assert native.load(source) is None
    assert "lacks the function quarter" in caplog.text


def test_the_umask_does_not_let_others_write() -> None:
    _needs_a_compiler()
    before = os.umask(0o000)
    try:
        library = native.compiled(SOURCE)
    finally:
        os.umask(before)
    assert library.stat().st_mode & 0o022 == library.parent.stat().st_mode & 0o022 == 0
