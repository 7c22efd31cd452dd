"""This machine, with this process as somebody else sees or remembers it."""

from dataclasses import replace
from typing import Any, ClassVar

from esen_flows.store.host import Host, ProcessId


class Seen(Host):
    """Says something else of its own process."""

    changes: ClassVar[dict[str, Any]] = {}

    def process(self, pid: int | None = None) -> ProcessId:
        """As `Host.process`, changed."""
        return replace(super().process(pid), **self.changes)


class Ghost(Seen):
    """A process of this machine that has ended."""

    changes: ClassVar[dict[str, Any]] = {"start": 1}


class Remote(Seen):
    """A process of another machine."""

    changes: ClassVar[dict[str, Any]] = {"host": "elsewhere"}


class Odd(Seen):
    """A process of a machine with a hostile name."""

    changes: ClassVar[dict[str, Any]] = {"host": "$$NOW"}
