"""kappa against displacement: what of the drift is missing parity, what is float32, what is the force field itself.

    python benchmarks/displacement_parity.py measure esen_silicon chgnet sevennet_0 --crystals Si --cell large
    python benchmarks/displacement_parity.py measure chgnet sevennet_0 --structures phononDB-PBE-structures.extxyz
    python benchmarks/displacement_parity.py plot

`measure` writes benchmarks/results/displacement_parity.json point by point (a point: force field, precision, crystal,
cell and displacement, with both parities where these differ); what is there is not computed again. Every displaced
supercell and its inverse are evaluated once: "as_is" takes the first alone, "average" both. A force field that
declares O3 is its own average. `plot` draws displacement_parity.png and prints what the three causes amount to, with
silicon's points of `silicon_kappa.py` (second order from 216 atoms) among those of the large cell.

Crystals: silicon, and by name members of PhononDB-103 (structures: CC-BY-4.0). Protocol: FIRE to 1e-4 eV/Angstrom
with symmetry kept, in the same precision; RTA at 300 K on 11 x 11 x 11, no isotopes, no Born charges. "large" is a
cell of 2x2x2 of the conventional cell (64 atoms) for both orders, and all pairs of displaced atoms. "small" takes
third order from 2x2x2 of the primitive cell (16 atoms) and pairs up to second neighbours, second order from the 64
atoms: a twentieth of the cost, not converged with the cell (silicon by esen_silicon: 56 instead of 86 W/m/K), and
with fewer pairs it hides most of what missing parity does.

What came out so far (benchmarks/results/displacement_parity.json, silicon_kappa_*.json):

- Parity is what makes SevenNet-l3i5 drift: silicon, large cell, float32, 92.1, 93.6 and 92.7 W/m/K averaged, 35.3,
  61.8 and 85.3 as is, at 0.005, 0.01 and 0.03 Angstrom. In the large cell esen_silicon as is loses 2.9 % at 0.005 and
  esen_nano 20 %. In the small cell, with fewer pairs and in float64, SevenNet-l3i5 loses 40 (Si), 17 (GaAs) and 0.3 %
  (NaCl) at 0.003, esen_nano 2.7, 19 and 30 %, SevenNet-0 1.5, gains 0.4 and loses 2.9 %.
- float32, averaged, costs at 0.003: 0.3 % (esen_silicon), 0.3 to 1.0 (esen_nano), 0.3 to 3.8 (SevenNet-0), 0.6 to 4.3
  (SevenNet-l3i5); the most on NaCl. From 0.01 on it is 0.2 % or less for those, but for SevenNet-l3i5: 2.7 % (NaCl) and
  0.5 % (GaAs) at 0.01, 0.6 and 0.0 at 0.03. It wants larger displacements.
- What is left, averaged and in float64, is the force field itself and goes with the square of the displacement where
  its energy is smooth: from 0.003 to 0.01 and on to 0.03 0.1 to 0.6 and 0.6 to 3.4 % (esen_nano), 0.1 to 0.3 and 0.0 to
  1.3 % (SevenNet-l3i5). SevenNet-0 moves by 0.1 and 0.5 to 0.9 % on NaCl and GaAs, but on silicon by 15 % from 0.01 to
  0.03 in the small cell and from 47 to 84 W/m/K in the large one, where more pairs meet its bends. CHGNet's moves by
  factors of 80 (Si), 1300 (NaCl) and 1400 (GaAs) with exact mirror images and in float64.

Hence the defaults: `parity = average`, without which no displacement is small enough to trust; and 0.03, as the
published protocol, where float32 and what is left of parity count least. Where a force field is smooth and float64
(ours), 0.01 is the better choice by 1 to 3 %. Of a force field that bends neither says what it means: `esen-flows
converge kappa --vary displacement.displacement_angstrom=0.01:0.03` tells which kind it is.
"""

import argparse
import json
import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms
from ase.build import bulk
from silicon_kappa import Remembered

from esen_flows.errors import ImaginaryModesError
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.forcefield.third_party.sevennet import sevennet
from esen_flows.physics.lattice.conductivity import conductivity
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.physics.relax import relax
from esen_flows.schemas.protocols import ConductivityProtocol, DisplacementProtocol, TransportProtocol

RESULTS = Path(__file__).parent / "results"
FILE = RESULTS / "displacement_parity.json"
DISPLACEMENTS = (0.003, 0.005, 0.01, 0.02, 0.03, 0.05)  # Angstrom
PROTOCOL = ConductivityProtocol(temperatures_kelvin=(300.0,), methods=("rta",))
TWICE_PRIMITIVE = ((0, 1, 1), (1, 0, 1), (1, 1, 0))  # of the conventional face-centred cell
SECOND_NEIGHBOURS = 0.75  # of the lattice constant


def force_field_of(model: str, dtype: str) -> Remembered:
    """A force field in a given precision; the card of SevenNet-l3i5 keeps it in float32, its builder does not."""
    if model == "sevennet_l3i5":
        return Remembered(sevennet("7net-l3i5", dtype=dtype))
    return Remembered(load_force_field(model, dtype=dtype))


def crystal_of(name: str, structures: Path | None) -> Atoms:
    """Silicon, or the cubic member of PhononDB-103 of that name."""
    if name == "Si":
        return bulk("Si", "diamond", a=5.43, cubic=True)
    if structures is None:
        raise SystemExit(f"{name} is a member of PhononDB-103: name its file with --structures")
    cubic = [a for a in ase.io.read(structures, ":") if a.info["name"] == name and a.info["symm.no"] in (216, 225)]
    if not cubic:
        raise SystemExit(f"no cubic {name} in {structures}")
    return cubic[0]


def displacements(cell: str, lattice_angstrom: float, displacement: float, parity: str) -> DisplacementProtocol:
    """The supercells of a point."""
    fields: dict[str, Any] = {"fc2_supercell": (2, 2, 2), "fc3_supercell": (2, 2, 2)}
    if cell == "small":
        fields["fc3_supercell"] = TWICE_PRIMITIVE
        fields["fc3_pair_cutoff_angstrom"] = round(SECOND_NEIGHBOURS * lattice_angstrom, 3)
    return DisplacementProtocol(order=3, displacement_angstrom=displacement, parity=parity, **fields)


def kappa(atoms: Atoms, force_field: ForceField, protocol: DisplacementProtocol) -> dict[str, Any]:
    """kappa (W/m/K, mean of the diagonal) of one point and parity; None with the reason where a mode is imaginary."""
    start, before = time.process_time(), force_field.force_evaluations
    forces = displaced_forces(atoms, force_field, protocol)
    row: dict[str, Any] = {
        "force_evaluations": force_field.force_evaluations - before,
        "cpu_seconds_forces": round(time.process_time() - start, 2),
    }
    start = time.process_time()
    try:
        output = conductivity(forces, TransportProtocol.of(PROTOCOL))
    except ImaginaryModesError as error:
        return {"kappa_w_per_m_k": None, "why_no_kappa": str(error).partition(":")[0], **row}
    row["cpu_seconds_transport"] = round(time.process_time() - start, 2)
    row["max_frequency_thz"] = output.max_frequency_thz
    return {"kappa_w_per_m_k": float(output.methods["rta"].kappa_w_per_m_k[0, :3].mean()), **row}


class Study:
    """The result file: points that are known, and those that are added."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"points": []}

    def known(self, **identity: Any) -> bool:
        """Whether a point is there."""
        return any(all(p[k] == v for k, v in identity.items()) for p in self.content["points"])

    def add(self, points: list[dict[str, Any]]) -> None:
        """Write points, and what they were computed with."""
        self.content["protocol"] = PROTOCOL.model_dump(mode="json", exclude={"displacement"})
        self.content["threads"] = os.environ.get("OMP_NUM_THREADS")
        packages = ("torch", "phonopy", "phono3py", "ase", "sevenn", "chgnet", "esen_flows")
        self.content["versions"] = {name: version(name) for name in packages}
        self.content["points"] += points
        text = json.dumps(self.content, indent=1) + "\n"
        self.path.with_suffix(".part").write_text(text)
        self.path.with_suffix(".part").replace(self.path)


def measure(arguments: argparse.Namespace) -> None:
    """All points that are not known yet, cheapest loops innermost."""
    study = Study(arguments.output)
    for model in arguments.models:
        for dtype in arguments.dtypes:
            force_field: Remembered | None = None
            for crystal in arguments.crystals:
                identity = {"model": model, "dtype": dtype, "crystal": crystal, "cell": arguments.cell}
                missing = [d for d in arguments.displacements if not study.known(displacement_angstrom=d, **identity)]
                if not missing:
                    continue
                force_field = force_field or force_field_of(model, dtype)
                start = crystal_of(crystal, arguments.structures)
                protocol = PROTOCOL.relax.model_copy(update={"parity": "average"})
                atoms = relax(start, force_field, protocol).structure.to_atoms()
                for displacement in missing:
                    found = point(atoms, force_field, arguments.cell, displacement)
                    common = {**identity, "displacement_angstrom": displacement, "model_key": force_field.key}
                    study.add([{**common, **row} for row in found])
                    print(model, dtype, crystal, arguments.cell, displacement, found, flush=True)
                    force_field.known.clear()


def point(atoms: Atoms, force_field: ForceField, cell: str, displacement: float) -> list[dict[str, Any]]:
    """The rows of one point: one for each parity that makes a difference."""
    parities = ("as_is",) if force_field.declaration.equivariance == "O3" else ("average", "as_is")
    lattice = float(atoms.cell.lengths().mean())
    rows = []
    for parity in parities:
        protocol = displacements(cell, lattice, displacement, parity)
        rows.append({"parity": parity, "lattice_angstrom": lattice, **kappa(atoms, force_field, protocol)})
    return rows


def main() -> None:
    """Measure, or plot what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("models", nargs="+", help="card names")
    measuring.add_argument("--crystals", nargs="+", default=["Si", "NaCl", "GaAs"])
    measuring.add_argument("--structures", type=Path, help="phononDB-PBE-structures.extxyz")
    measuring.add_argument("--cell", choices=("small", "large"), default="small")
    measuring.add_argument("--dtypes", nargs="+", default=["float64", "float32"])
    measuring.add_argument("--displacements", type=float, nargs="+", default=list(DISPLACEMENTS))
    measuring.add_argument("--output", type=Path, default=FILE)
    commands.add_parser("plot")
    arguments = parser.parse_args()
    if arguments.command == "measure":
        measure(arguments)
    else:
        from displacement_parity_plot import main as draw

        draw(FILE)


if __name__ == "__main__":
    main()
