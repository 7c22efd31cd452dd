"""A package with an ASE calculator that works, and that fails in every way on request: the charge names the fault."""

import os
import signal
import time

import numpy as np
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT

__version__ = "1.0"
CRASH, HANG, NOT_FINITE, SHAPE, GARBAGE, RAISE, MEMORY, TALK, WORN = range(1, 10)


class FakeCalculator(EMT):
    """Effective-medium theory, scaled."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.calls = 0
        print("on standard output while it is built")

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        self.results = {name: self.scale * value for name, value in self.results.items()}
        fault = int(atoms.info.get("charge", 0))
        self.calls += 1
        if fault == CRASH or (fault == WORN and self.calls > 1):
            print("about to crash", flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        elif fault == HANG:
            time.sleep(3600)
        elif fault == NOT_FINITE:
            self.results["forces"] = np.full((len(atoms), 3), np.nan)
        elif fault == SHAPE:
            self.results["forces"] = np.zeros((len(atoms) + 1, 3))
        elif fault == GARBAGE:
            for descriptor in range(3, 16):  # also into the pipe of the messages, wherever it is
                try:
                    os.write(descriptor, b"garbage " * 64)
                except OSError:
                    continue
        elif fault == RAISE:
            raise RuntimeError("this structure is not for me")
        elif fault == MEMORY:
            raise RuntimeError("CUDA out of memory")
        elif fault == TALK:
            print("talk " * 1000, flush=True)
            os.system("echo from a program that the calculator starts")
