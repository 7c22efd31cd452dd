"""Equations of state of five crystals: fits of this package beside ASE's on the same energies, and DFT.

    python benchmarks/eos.py esen_nano
    python benchmarks/eos.py chgnet sevennet_0        # where these packages are installed

The default protocol: a relaxation with the space group, nine volumes with lattice vectors from -5 % to +5 %, positions
and shape relaxed at each. `ase` is `ase.eos.EquationOfState` on the same energies; `tangent` is the bulk modulus from
the stresses at 0.1 % more and less volume, with neither equation. DFT (PBE) is the Materials Project's K of Voigt,
Reuss and Hill for binaries (mp-1265, mp-22862, mp-2534, mp-661; CC-BY-4.0) and, for silicon, the equation of state of
WIEN2k in K. Lejaeghere et al., Science 351, aad3000 (2016). Results by model in benchmarks/results/eos.json.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.eos import EquationOfState

from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.eos import EQUATIONS, equation_of_state
from esen_flows.physics.relax import relax
from esen_flows.schemas.eos import EosFitProtocol, EosProtocol, eos_steps
from esen_flows.schemas.protocols import RelaxProtocol
from esen_flows.units import EV_PER_ANGSTROM3_TO_GPA

PATH = Path(__file__).parent / "results" / "eos.json"
CRYSTALS = {
    "Si": bulk("Si", "diamond", a=5.46),
    "MgO": bulk("MgO", "rocksalt", a=4.26),
    "NaCl": bulk("NaCl", "rocksalt", a=5.70),
    "GaAs": bulk("GaAs", "zincblende", a=5.75),
    "AlN": bulk("AlN", "wurtzite", a=3.13, c=5.02, u=0.382),
}
DFT_GPA = {"Si": 88.545, "MgO": 151.45, "NaCl": 23.77, "GaAs": 60.742, "AlN": 194.62}
ASE_NAMES = {"birch_murnaghan": "birchmurnaghan", "vinet": "vinet"}


def main() -> None:
    """Compute, write, print."""
    found: dict[str, Any] = json.loads(PATH.read_text()) if PATH.exists() else {}
    for name in sys.argv[1:]:
        force_field = load_force_field(name)
        began = time.perf_counter()
        found[name] = {formula: crystal(atoms, force_field, formula) for formula, atoms in CRYSTALS.items()}
        found[name]["seconds"] = round(time.perf_counter() - began, 1)
        found[name]["dtype"] = force_field.declaration.dtype
        found[name]["ase"] = ase.__version__
        PATH.write_text(json.dumps(found, indent=1) + "\n")
        for formula in CRYSTALS:
            print(name, formula, json.dumps(found[name][formula]))


def crystal(atoms: Atoms, force_field: ForceField, formula: str) -> dict[str, Any]:
    """Both fits of one crystal, ASE's fits of the same energies, and the bulk modulus from stresses."""
    chain = eos_steps(EosProtocol())
    start = relax(atoms, force_field, as_relaxation(chain[0].protocol)).structure.to_atoms()
    volumes = [relax(start, force_field, as_relaxation(step.protocol)) for step in chain[1:-1]]
    output = equation_of_state(volumes, EosFitProtocol())
    result: dict[str, Any] = {"dft_gpa": DFT_GPA[formula]}
    for name in EQUATIONS:
        fit = output.fits[name]
        state = EquationOfState(output.volumes_per_atom_angstrom3, output.energies_per_atom_ev, eos=ASE_NAMES[name])
        volume, _, modulus = state.fit()
        result[name] = {key: round(value, 6) for key, value in fit.model_dump().items()}
        result[name]["ase_bulk_modulus_gpa"] = round(modulus * EV_PER_ANGSTROM3_TO_GPA, 6)
        result[name]["ase_volume_per_atom_angstrom3"] = round(volume, 6)
        result[name]["ase_bulk_modulus_derivative"] = round(float(state.eos_parameters[2]), 6)
    result["tangent_gpa"] = round(tangent(start, force_field), 3)
    return result


def tangent(start: Atoms, force_field: ForceField) -> float:
    """Bulk modulus from the stresses of relaxations at 0.1 % more and less volume, in GPa."""
    pressures = []
    for factor in (0.999, 1.001):
        scale = factor ** (1 / 3)
        deformation = ((scale, 0.0, 0.0), (0.0, scale, 0.0), (0.0, 0.0, scale))
        output = relax(start, force_field, EosProtocol().at_volume.model_copy(update={"deformation": deformation}))
        pressures.append(-np.trace(output.stress_ev_per_angstrom3) / 3.0)
    return float((pressures[0] - pressures[1]) / 0.002 * EV_PER_ANGSTROM3_TO_GPA)


def as_relaxation(protocol: object) -> RelaxProtocol:
    """The protocol of a step that is a relaxation."""
    assert isinstance(protocol, RelaxProtocol)
    return protocol


if __name__ == "__main__":
    main()
