"""Facts about this machine and its processes, from /proc."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Locks, mapped files or sockets of a database do not work, or not safely, on any of these.
NETWORK_FILE_SYSTEMS = """
    nfs nfs4 lustre gpfs cifs smb smb2 smb3 smbfs ncpfs beegfs beegfs_nodev fhgfs ceph 9p afs openafs panfs pvfs2
    orangefs glusterfs wekafs davfs coda ocfs2 gfs2 vboxsf prl_fs acfs exafs
""".split()  # noqa: SIM905
# FUSE names what it wraps; these few are local, everything else behind FUSE is taken for a network.
_LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs", "fuse.ext2", "fuse.ext4", "fuse.bindfs", "fuse.mergerfs"})


@dataclass(frozen=True)
class ProcessId:
    """A process that cannot be mistaken for a later one with the same number, nor for one of another machine."""

    host: str
    boot_id: str
    namespace: str  # of process numbers: containers on one kernel share the boot id
    pid: int
    start: int  # clock ticks after boot

    def as_dict(self) -> dict[str, Any]:
        """As a plain dictionary; `ProcessId(**d)` restores it."""
        return dict(vars(self))


@dataclass(frozen=True)
class Host:
    """This machine as /proc shows it; tests hand in a folder of their own."""

    proc: Path = Path("/proc")

    def process(self, pid: int | None = None) -> ProcessId:
        """Identity of a process of this machine, by default of this one.

        Raises
        ------
        ProcessLookupError
            there is no such process (any more).
        """
        number = os.getpid() if pid is None else pid
        start = self._start(number)
        if start is None:
            raise ProcessLookupError(f"no process {number}")
        return ProcessId(platform.node(), self.boot_id(), self._namespace(), number, start)

    def boot_id(self) -> str:
        """Identity of the running kernel."""
        return (self.proc / "sys/kernel/random/boot_id").read_text().strip()

    def sees(self, process: ProcessId) -> bool:
        """Whether that process would be visible from here if it lived: same kernel, same process numbers."""
        here = (platform.node(), self.boot_id(), self._namespace())
        return (process.host, process.boot_id, process.namespace) == here

    def is_dead(self, process: ProcessId) -> bool:
        """Whether that process has certainly ended; False for one that cannot be seen from here."""
        if not self.sees(process):
            return False
        readable = True
        try:
            os.kill(process.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            readable = False  # somebody else's, and /proc may hide it from us
        start = self._start(process.pid)
        if start is None:
            return readable  # what we may signal we may read, unless it has just ended or waits as a zombie
        return start != process.start

    def file_system(self, path: Path) -> tuple[str, str]:
        """Type and mount point of the file system that holds `path`, or would hold it once it is made."""
        target = path.expanduser().resolve()
        found = ("unknown", "/")
        for line in (self.proc / "mounts").read_text().splitlines():
            fields = line.split(" ")
            mount = Path(_unescape(fields[1]))
            if target.is_relative_to(mount) and len(str(mount)) >= len(found[1]):
                found = (fields[2], str(mount))
        return found

    def network_file_system(self, path: Path) -> tuple[str, str] | None:
        """Type and mount point if `path` lies on a network file system, else None."""
        kind, mount = self.file_system(path)
        fuse = kind.startswith("fuse.") and kind not in _LOCAL_FUSE
        return (kind, mount) if fuse or kind in NETWORK_FILE_SYSTEMS else None

    def lacks_avx(self) -> bool:
        """Whether this is an x86 processor without AVX, on which mongod 5 and later dies of an illegal instruction."""
        for line in (self.proc / "cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "flags":
                return "avx" not in value.split()
        return False

    def _namespace(self) -> str:
        try:
            return os.readlink(self.proc / "self/ns/pid")
        except OSError:
            return "unknown"

    def _start(self, pid: int) -> int | None:
        """Start time of a running process in clock ticks after boot; None for a zombie or none at all."""
        try:
            stat = (self.proc / str(pid) / "stat").read_text()
        except OSError:
            return None
        # The command's name is in parentheses and may hold blanks and parentheses itself.
        fields = stat[stat.rindex(")") + 2 :].split()
        return None if fields[0] in "ZXx" else int(fields[19])


def _unescape(field: str) -> str:
    """A path of /proc/mounts, where blanks are octal escapes."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field
