"""Messages between parent and child, and the end of the child with its parent."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from esen_flows.forcefield.third_party import calculator_child
from esen_flows.forcefield.third_party.calculator_child import HEAD, MAGIC, VERSION, ProtocolError, pack, unpack

PARENT = """
import sys, time
from esen_flows.forcefield.third_party.calculator_process import CalculatorProcess
child, package = sys.argv[1:]
recipe = {"build": "fake_force_field:FakeCalculator", "package": "fake_force_field", "arguments": {"scale": 1.0},
          "paths": [package], "expected_version": "1.0", "outside": False}
process = CalculatorProcess([sys.executable, "-I", child], recipe, environment={}, label="x", time_limit_seconds=60)
process.description()
print(process.pid, flush=True)
time.sleep(600)
"""


def reader(data: bytes):
    position = 0

    def read(count: int) -> bytes:
        nonlocal position
        position += count
        if position > len(data):
            raise EOFError
        return data[position - count : position]

    return read


def test_a_message_has_the_arrays_that_were_sent():
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.zeros((0, 3)), "c": np.array([1, -2]), "d": np.uint8([1])}
    header, found = unpack(reader(pack({"kind": "x", "text": "é"}, arrays)))
    assert header == {"kind": "x", "text": "é"}
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)


def recipe(build: str, package: str, version: str, outside: bool = False) -> dict[str, object]:
    fixed = {"arguments": {}, "paths": []}
    return {**fixed, "build": build, "package": package, "expected_version": version, "outside": outside}


def test_code_of_another_package_or_version_is_not_called(monkeypatch):
    called = []
    monkeypatch.setattr(os, "getcwd", lambda: called.append("called"))
    with pytest.raises(ValueError, match=r"os:getcwd is not of numpy, but of no distribution.*build_outside_package"):
        calculator_child.build(recipe("os:getcwd", "numpy", np.__version__))
    with pytest.raises(ValueError, match=r"has numpy .*, the card says 0\.0"):
        calculator_child.build(recipe("os:getcwd", "numpy", "0.0", outside=True))
    assert not called
    calculator_child.build(recipe("os:getcwd", "numpy", np.__version__, outside=True))
    assert called
    found, _ = calculator_child.build(recipe("yaml:YAMLError", "PyYAML", version("PyYAML")))
    assert type(found).__name__ == "YAMLError"


def message(header: object, *, magic: bytes = MAGIC, version: int = VERSION) -> bytes:
    text = json.dumps(header).encode()
    return HEAD.pack(magic, version, len(text)) + text


@pytest.mark.parametrize(
    "data",
    [
        message({"kind": "x", "arrays": []}, magic=b"noMe"),
        message({"kind": "x", "arrays": []}, version=VERSION + 1),
        HEAD.pack(MAGIC, VERSION, 1 << 30),
        message([]),
        message({"arrays": []}),
        message({"kind": "x", "arrays": [["a", "f8", [-1]]]}),
        message({"kind": "x", "arrays": [["a", "f8", [True]]]}),
        message({"kind": "x", "arrays": [["a", "O8", [1]]]}),
        message({"kind": "x", "arrays": [["a", "f8", [1 << 62, 1 << 62]]]}),
        message({"kind": "x", "arrays": [["a", "f8", [1]]] * 17}),
    ],
)
def test_what_is_not_a_message_is_refused_before_anything_is_allocated(data):
    with pytest.raises(ProtocolError):
        unpack(reader(data))


def test_the_child_imports_nothing_of_this_package():
    assert "esen_flows" not in Path(calculator_child.__file__).read_text()


def test_the_child_ends_with_a_parent_that_is_killed():
    folder = Path(__file__).parent / "fake_package"
    command = [sys.executable, "-c", PARENT, calculator_child.__file__, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        number = parent.stdout.readline().strip()
        assert number.isdigit(), "the parent ended without a child"
        child = Path("/proc") / number
        assert child.exists()
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60.0
    while child.exists() and child.joinpath("stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, "the child outlives its parent"
        time.sleep(0.05)
