"""Facts about this machine and its processes, from /proc."""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Locks, mapped files or sockets of a database do not work, or not safely, on any of these.
NETWORK_FILE_SYSTEMS = """
    nfs nfs4 lustre gpfs cifs smb smb2 smb3 smbfs ncpfs beegfs beegfs_nodev fhgfs ceph 9p afs openafs panfs pvfs2
    orangefs glusterfs wekafs davfs coda ocfs2 gfs2 vboxsf prl_fs acfs exafs
""".split()  # noqa: SIM905
# The type of a FUSE mount names what it wraps. These are local; anything else behind FUSE is taken for a network.
_LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs", "fuse.ext2", "fuse.ext4", "fuse.bindfs", "fuse.mergerfs"})


@dataclass(frozen=True)
class ProcessId:
    """Identity of a process that no later process with the same number has, nor one of another machine.

    Attributes
    ----------
    host
        Name of the machine.
    boot_id
        Identity of the running kernel.
    namespace
        Namespace of process numbers, because containers on one kernel share the boot id.
    pid
        Process number.
    start
        Start of the process in clock ticks after the boot.
    """

    host: str
    boot_id: str
    namespace: str
    pid: int
    start: int

    def as_dict(self) -> dict[str, Any]:
        """The fields as a plain dictionary.

        Returns
        -------
        dict of str to Any
            Dictionary `d` from which `ProcessId(**d)` restores the value.
        """
        return dict(vars(self))


@dataclass(frozen=True)
class Host:
    """The machine that runs this process.

    Attributes
    ----------
    proc
        Folder of the proc file system; tests give another one.
    """

    proc: Path = Path("/proc")

    def process(self, pid: int | None = None) -> ProcessId:
        """Identity of a process of this machine.

        Parameters
        ----------
        pid
            Process number; None: this process.

        Returns
        -------
        ProcessId
            The identity.

        Raises
        ------
        ProcessLookupError
            There is no such process (any more).
        """
        number = os.getpid() if pid is None else pid
        start = self._start(number)
        if start is None:
            raise ProcessLookupError(f"no process {number}")
        return ProcessId(platform.node(), self.boot_id(), self._namespace(), number, start)

    def boot_id(self) -> str:
        """Identity of the running kernel.

        Returns
        -------
        str
            A random id, new after every boot.
        """
        return (self.proc / "sys/kernel/random/boot_id").read_text().strip()

    def sees(self, process: ProcessId) -> bool:
        """Whether a process would be visible from here if it was alive.

        Parameters
        ----------
        process
            Process of any machine.

        Returns
        -------
        bool
            True if it has the same kernel and the same namespace of process numbers.
        """
        here = (platform.node(), self.boot_id(), self._namespace())
        return (process.host, process.boot_id, process.namespace) == here

    def is_dead(self, process: ProcessId) -> bool:
        """Whether a process has certainly ended.

        Parameters
        ----------
        process
            Process of any machine.

        Returns
        -------
        bool
            False for a process that is alive or cannot be seen from here.
        """
        if not self.sees(process):
            return False
        readable = True
        try:
            os.kill(process.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            readable = False  # a process of another user, which /proc may hide
        start = self._start(process.pid)
        if start is None:
            # A process that may be signalled may also be read, unless it has just ended or is a zombie.
            return readable
        return start != process.start

    def file_system(self, path: Path) -> tuple[str, str]:
        """Type and mount point of the file system of a path.

        Parameters
        ----------
        path
            File or folder, which need not exist yet.

        Returns
        -------
        tuple of str, str
            Type as in /proc/mounts, and mount point.
        """
        target = path.expanduser().resolve()
        found = ("unknown", "/")
        for line in (self.proc / "mounts").read_text().splitlines():
            _, mount, kind, *_ = line.split(" ")
            # Blanks and the like are octal escapes.
            mount = re.sub(r"\\([0-7]{3})", lambda escape: chr(int(escape[1], 8)), mount)
            if target.is_relative_to(mount) and len(mount) >= len(found[1]):
                found = (kind, mount)
        return found

    def network_file_system(self, path: Path) -> tuple[str, str] | None:
        """Type and mount point of the network file system of a path.

        Parameters
        ----------
        path
            File or folder, which need not exist yet.

        Returns
        -------
        tuple of str, str | None
            Type and mount point; None if the file system is local.
        """
        kind, mount = self.file_system(path)
        fuse = kind.startswith("fuse.") and kind not in _LOCAL_FUSE
        return (kind, mount) if fuse or kind in NETWORK_FILE_SYSTEMS else None

    def lacks_avx(self) -> bool:
        """Whether the processor cannot run mongod 5 and later, which die there of an illegal instruction.

        Returns
        -------
        bool
            True for an x86 processor without AVX.
        """
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
        """Start of a running process in clock ticks after boot; None for a zombie or if there is no such process."""
        try:
            stat = (self.proc / str(pid) / "stat").read_text()
        except OSError:
            return None
        # The name of the command is in parentheses, and may itself contain blanks and parentheses.
        fields = stat[stat.rindex(")") + 2 :].split()
        return None if fields[0] in "ZXx" else int(fields[19])
