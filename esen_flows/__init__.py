"""esen_flows: force fields from training to published benchmarks.

The public names load on first use, so that `import esen_flows` costs neither torch nor a database driver.
"""

from typing import TYPE_CHECKING, Any

from esen_flows.version import __version__

__all__ = ["__version__", "load_force_field", "submit"]

if TYPE_CHECKING:
    from esen_flows.forcefield.load import load_force_field
    from esen_flows.queue.submit import submit


def __getattr__(name: str) -> Any:
    if name == "load_force_field":
        from esen_flows.forcefield.load import load_force_field

        return load_force_field
    if name == "submit":
        from esen_flows.queue.submit import submit

        return submit
    raise AttributeError(f"module 'esen_flows' has no attribute {name!r}; public names: {', '.join(__all__)}")
