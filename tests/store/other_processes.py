"""Hosts on which this process has another identity, as the claims of other processes would have."""

from dataclasses import replace
from typing import Any, ClassVar

from esen_flows.store.host import Host, ProcessId


class _ChangedHost(Host):
    """Changes the identity of its own process."""

    changes: ClassVar[dict[str, Any]] = {}

    def process(self, pid: int | None = None) -> ProcessId:
        """As `Host.process`, with other values."""
        return replace(super().process(pid), **self.changes)


class EndedProcess(_ChangedHost):
    """A process of this machine that has ended."""

    changes: ClassVar[dict[str, Any]] = {"start": 1}


class RemoteProcess(_ChangedHost):
    """A process of another machine."""

    changes: ClassVar[dict[str, Any]] = {"host": "elsewhere"}


class OddHostName(_ChangedHost):
    """A process of a machine whose name is an expression of MongoDB."""

    changes: ClassVar[dict[str, Any]] = {"host": "$$NOW"}
