"""Run by .ci/run where only torch, numpy, ase, safetensors and vesin are installed: import and evaluate."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from ase.build import bulk

import esen_flows.data
import esen_flows.forcefield
import esen_flows.forcefield.load
import esen_flows.network
import esen_flows.training.train

for absent in ("pydantic", "yaml", "phonopy", "pymongo"):
    if find_spec(absent) is not None:
        sys.exit(f"{absent} is installed, so that this environment is not bare")

# A calibration of the domain lies beside the checkpoint that it is of: NAME.domain.safetensors.
checkpoints = [path for path in Path(sys.argv[1]).glob("*.safetensors") if not path.stem.endswith(".domain")]
if len(checkpoints) != 1:
    sys.exit(f"expected one .safetensors file in {sys.argv[1]}, found {len(checkpoints)}")
checkpoint = checkpoints[0]
force_field = esen_flows.forcefield.load.load_force_field(checkpoint, dtype="float64")
crystal = bulk("Si", "diamond", a=5.46, cubic=True)
perfect = force_field.evaluate([crystal])[0]
if not np.isfinite(perfect.energy) or np.abs(perfect.forces).max() > 1e-8:
    sys.exit(f"diamond silicon: energy {perfect.energy} eV, largest force {np.abs(perfect.forces).max()} eV/A, not 0")
crystal.rattle(0.05, seed=1)
rattled = force_field.evaluate([crystal])[0]
if not rattled.energy > perfect.energy:
    sys.exit(f"rattled silicon at {rattled.energy} eV is not above the perfect crystal at {perfect.energy} eV")
print(f"{checkpoint}: {perfect.energy / 8:.4f} eV/atom; rattled by 0.05 A: {rattled.energy / 8:.4f} eV/atom")
