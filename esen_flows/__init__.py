"""esen_flows: force fields from training to published benchmarks.

The public names load on first use, so that `import esen_flows` costs neither torch nor a database driver:

import esen_flows as ef

silicon = ef.load("Si.cif")
phonon = ef.phonon(silicon, "esen_silicon")
eos = ef.compute("eos", silicon, "esen_silicon")  # and so any property that has a command
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from esen_flows.version import __version__

__all__ = ["__version__", "compute", "kappa", "load", "load_force_field", "phonon", "relax", "submit", "table"]

if TYPE_CHECKING:
    from esen_flows.cli.notebook import compute, kappa, load, phonon, relax, table
    from esen_flows.forcefield.load import load_force_field
    from esen_flows.queue.submit import submit

_MODULES = {
    **dict.fromkeys(("compute", "kappa", "load", "phonon", "relax", "table"), "esen_flows.cli.notebook"),
    "load_force_field": "esen_flows.forcefield.load",
    "submit": "esen_flows.queue.submit",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'esen_flows' has no attribute {name!r}; public names: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
