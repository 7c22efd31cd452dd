"""C++ files that are compiled once, or not at all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from esen_flows import native
from esen_flows.native import NativeSource

SOURCE = NativeSource("half", b'extern "C" double half(double x) { return x / 2; }', "halving takes twice as long")


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
