"""Run a chunk in one process after the other until one does not crash. A structure with platinum kills its process.

The parent opens no connection: its children are clean forks of a process that has imported everything.
"""

import os
import signal
import sys
from collections.abc import Sequence

from ase import Atoms

from esen_flows.forcefield import load
from esen_flows.forcefield.contract import Evaluation
from esen_flows.forcefield.third_party.any_ase import AseForceField
from esen_flows.forcefield.third_party.emt import emt
from esen_flows.makers.chunks import chunk_job


class CrashingEmt(AseForceField):
    """EMT that kills its process at a structure with platinum."""

    def __init__(self) -> None:
        inner = emt()
        super().__init__(inner.calculator, key=inner.key, label="emt", declaration=inner.declaration)

    def evaluate(self, structures: Sequence[Atoms]) -> list[Evaluation]:
        """Evaluate as EMT does, or kill this process."""
        if any("Pt" in atoms.get_chemical_symbols() for atoms in structures):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().evaluate(structures)


def main(keys: list[str]) -> None:
    """Print how many processes died."""
    force_field = CrashingEmt()
    load.load_force_field = lambda *arguments, **options: force_field
    for deaths in range(12):
        child = os.fork()
        if child == 0:
            chunk_job("c", "chunk", "relax", keys)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            print(deaths)
            return
    raise SystemExit("it never ended")


if __name__ == "__main__":
    main(sys.argv[1:])
