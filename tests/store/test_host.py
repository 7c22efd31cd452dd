"""Facts about this machine and invented ones."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from esen_flows.store.host import Host

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/ann/local\\040disk xfs rw 0 0
lustre /scratch lustre rw 0 0
C: /mnt/c 9p rw 0 0
ann@far:/ /remote fuse.sshfs rw 0 0
overlay /layers fuse.fuse-overlayfs rw 0 0
"""


def host_with(tmp_path: Path, **files: str) -> Host:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return Host(proc=tmp_path)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/srv/data", None),
        ("/home/ann/.local/share", ("nfs4", "/home")),
        ("/home/ann/local disk/data", None),
        ("/homework", None),
        ("/scratch", ("lustre", "/scratch")),
        ("/mnt/c/Users", ("9p", "/mnt/c")),
        ("/remote/data", ("fuse.sshfs", "/remote")),
        ("/layers/data", None),
    ],
)
def test_network_file_systems_are_recognised(tmp_path: Path, path: str, found: tuple[str, str] | None) -> None:
    assert host_with(tmp_path, mounts=MOUNTS).network_file_system(Path(path)) == found


def test_a_later_mount_on_the_same_point_counts(tmp_path: Path) -> None:
    host = host_with(tmp_path, mounts="/dev/sda1 /data ext4 rw 0 0\nserver:/x /data nfs rw 0 0\n")
    assert host.network_file_system(Path("/data/esen")) == ("nfs", "/data")


def test_avx(tmp_path: Path) -> None:
    assert host_with(tmp_path, cpuinfo="processor\t: 0\nflags\t\t: fpu sse2 ssse3\n").lacks_avx()
    assert not host_with(tmp_path, cpuinfo="processor\t: 0\nflags\t\t: fpu sse2 avx avx2\n").lacks_avx()
    assert not host_with(tmp_path, cpuinfo="processor\t: 0\nFeatures\t: fp asimd\n").lacks_avx()  # ARM has none


def test_this_process_is_alive() -> None:
    host = Host()
    assert host.process().pid == os.getpid()
    assert host.process() == host.process()
    assert not host.is_dead(host.process())


def test_an_ended_process_is_dead_even_as_a_zombie() -> None:
    host = Host()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = host.process(child.pid)
    assert not host.is_dead(process)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # the process has ended and is a zombie
    assert host.is_dead(process)
    child.communicate()
    assert host.is_dead(process)
    with pytest.raises(ProcessLookupError):
        host.process(child.pid)


def test_a_later_process_with_the_same_number_is_another_one() -> None:
    host = Host()
    assert host.is_dead(replace(host.process(), start=host.process().start - 1))


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"boot_id": "0"}, {"namespace": "pid:[1]"}])
def test_an_invisible_process_is_not_called_dead(change: dict[str, str]) -> None:
    host = Host()
    gone = replace(host.process(), start=1, **change)
    assert not host.sees(gone)
    assert not host.is_dead(gone)
