"""The paths of the server, and its owner record."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from esen_flows.errors import ServerUnavailableError
from esen_flows.store.host import Host
from esen_flows.store.server.layout import Layout, Owner, check_socket_path, make_private


def owner(**changes: object) -> Owner:
    base = Owner(
        state="ready",
        keeper=Host().process(),
        mongod=None,
        binary="/usr/bin/mongod",
        version="6.0.5",
        socket="/tmp/x/mongod.sock",
        started="2026-11-21T10:00:00+00:00",
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_two_names_of_a_folder_are_one_server(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert Layout.of(tmp_path / "link") == Layout.of(tmp_path / "real")


def test_the_runtime_folder_is_that_of_the_session_or_in_tmp(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path)
    assert layout.runtime_dir({"XDG_RUNTIME_DIR": str(tmp_path)}).parent == tmp_path
    in_tmp = layout.runtime_dir({})
    assert in_tmp.parent == Path("/tmp")
    assert in_tmp.name.startswith(f"esen-{os.getuid()}-")
    # A session that has ended leaves the variable without its folder.
    assert layout.runtime_dir({"XDG_RUNTIME_DIR": str(tmp_path / "gone")}) == in_tmp
    assert Layout.of(tmp_path / "other").runtime_dir({}) != in_tmp


def test_long_socket_paths_are_refused_with_the_remedy() -> None:
    check_socket_path(Path("/" + "a" * 106))
    with pytest.raises(ServerUnavailableError, match=r"has 108 bytes.*holds 107.*XDG_RUNTIME_DIR"):
        check_socket_path(Path("/" + "a" * 107))
    with pytest.raises(ServerUnavailableError, match="has 121 bytes"):
        check_socket_path(Path("/" + "ä" * 60))  # bytes count, not characters


def test_private_folders_are_closed_to_other_users(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    make_private(folder, parents=True)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    make_private(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_link_or_file_in_the_place_of_a_private_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    (tmp_path / "file").write_text("")
    with pytest.raises(ServerUnavailableError, match="not a folder of user"):
        make_private(tmp_path / "link")
    with pytest.raises(ServerUnavailableError, match="File exists"):
        make_private(tmp_path / "file")


def test_a_folder_that_cannot_be_made_names_the_remedy() -> None:
    with pytest.raises(ServerUnavailableError, match=r"cannot make.*ESEN_FLOWS_DATA_DIR"):
        make_private(Path("/proc/nowhere/mongodb"), parents=True)


def test_owner_record_round_trip(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert Owner.read(layout) is None
    owner(mongod=Host().process()).write(layout)
    assert Owner.read(layout) == owner(mongod=Host().process())
    assert [path.name for path in tmp_path.iterdir()] == ["owner.json"]


@pytest.mark.parametrize("text", ["", "{}", '{"state": "ready", "keeper": 3}', "[1]", "\x00\x00"])
def test_a_damaged_owner_record_is_none(tmp_path: Path, text: str) -> None:
    layout = Layout(tmp_path)
    layout.owner.write_text(text)
    assert Owner.read(layout) is None


def test_state_and_process_tell_whether_a_server_is_running_alive_or_foreign() -> None:
    host, here = Host(), Host().process()
    dead = replace(here, start=here.start - 1)
    elsewhere = replace(here, host="elsewhere", boot_id="other")
    rebooted = replace(here, boot_id="before")
    assert owner().is_running(host)
    assert not owner(keeper=dead).is_running(host)
    assert owner(state="starting").is_alive(host)
    assert not owner(state="starting").is_running(host)
    assert not owner(state="stopped").is_alive(host)
    assert owner(keeper=elsewhere).is_foreign(host)
    assert not owner(keeper=elsewhere, state="stopped").is_foreign(
        host
    )  # stopped cleanly: its data may be moved to another machine
    assert not owner(keeper=rebooted).is_foreign(host)
    assert not owner(keeper=replace(here, host="renamed")).is_foreign(host)  # the same kernel
