"""Lattice constants and phonons of a distilled force field beside those of its labeller, crystal by crystal.

    mkdir -p distill && tar xf benchmarks/data/nano103_phonons.tar.xz -C distill
    python benchmarks/crystals_of_labels.py checkpoint.safetensors --phonons distill/phonons \
        --crystals benchmarks/data/nano103.xyz.crystals.json --folder distill/phonons_of_student \
        --output benchmarks/results/nano103_crystals.json

Every crystal is relaxed from the labeller's geometry, expanded by 1 % (fmax 1e-4 eV/Angstrom, symmetry kept). Phonons
of both: finite displacements of 0.01 Angstrom in 64 atoms (wurtzite: 72) at the force field's own geometry, force
constants symmetrised by phonopy, frequencies on a Gamma-centred mesh of 12 x 12 x 12 (wurtzite 12 x 12 x 8). A mode
below -0.05 THz is imaginary. `--folder` keeps the phonons of the distilled one for a call that goes on.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
import phonopy
from matplotlib import pyplot as plt
from matplotlib.ticker import NullFormatter

from esen_flows.data.prototypes import Crystal, perfect, with_geometry_of
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.crystals import PROTOCOL
from esen_flows.physics.lattice.recipe_phonons import write_phonons
from esen_flows.physics.relax import relax

IMAGINARY_THZ = -0.05
MARKERS = {"rocksalt": "s", "zincblende": "o", "wurtzite": "^", "diamond": "D"}


def relaxed(crystal: Crystal, force_field: ForceField) -> Crystal:
    """The crystal at the minimum of the force field's energy, from its own geometry expanded by 1 %."""
    start = perfect(crystal)
    start.set_cell(1.01 * start.cell[:], scale_atoms=True)
    return with_geometry_of(crystal, relax(start, force_field, PROTOCOL).structure.to_atoms())


def frequencies_thz(folder: Path, crystal: Crystal) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies of shape (q-points, bands) in THz of a folder of phonopy, and the weights of the q-points."""
    phonon = phonopy.load(folder / "phonopy_params.yaml", is_nac=False, log_level=0)
    phonon.run_mesh((12, 12, 8) if crystal.prototype == "wurtzite" else (12, 12, 12), is_gamma_center=True)
    return np.array(phonon.mesh.frequencies), np.array(phonon.mesh.weights)


def compared(own: Crystal, labeller: Crystal, folders: tuple[Path, Path]) -> dict[str, Any]:
    """Relative deviations of one crystal, and its lowest and highest frequencies in THz."""
    lengths = [perfect(each).cell.lengths() for each in (own, labeller)]
    deviations = [float(a / b - 1.0) for a, b in zip(*lengths, strict=True)]
    mine, weights = frequencies_thz(folders[0], own)
    theirs, _ = frequencies_thz(folders[1], labeller)
    return {
        "prototype": own.prototype,
        "lattice_deviation": max(deviations, key=abs),
        "highest_thz": float(mine.max()),
        "highest_thz_labeller": float(theirs.max()),
        "highest_deviation": float(mine.max() / theirs.max() - 1.0),
        "rms_difference_thz": float(np.sqrt(np.average((mine - theirs) ** 2, axis=0, weights=weights).mean())),
        "lowest_thz": float(mine.min()),
        "lowest_thz_labeller": float(theirs.min()),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many crystals are within the limits, and medians."""
    stable = [row for row in rows if row["lowest_thz_labeller"] > IMAGINARY_THZ]
    return {
        "crystals": len(rows),
        "lattice_within_0.1_percent": sum(abs(row["lattice_deviation"]) <= 1e-3 for row in rows),
        "lattice_median_percent": 100 * median(abs(row["lattice_deviation"]) for row in rows),
        "highest_within_3_percent": sum(abs(row["highest_deviation"]) <= 0.03 for row in rows),
        "highest_median_percent": 100 * median(abs(row["highest_deviation"]) for row in rows),
        "rms_median_thz": median(row["rms_difference_thz"] for row in rows),
        "stable_by_labeller": len(stable),
        "stable_by_both": sum(row["lowest_thz"] > IMAGINARY_THZ for row in stable),
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Deviations of lattice constants and highest frequencies, and lowest frequencies."""
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.8), constrained_layout=True)
    titles = (
        ("lattice_deviation", "lattice constant", 100, 0.1),
        ("highest_deviation", "highest frequency", 100, 3.0),
    )
    for axis, (key, title, factor, limit) in zip(panels, titles, strict=False):
        for prototype, marker in MARKERS.items():
            chosen = sorted(factor * abs(row[key]) for row in rows if row["prototype"] == prototype)
            share = (np.arange(len(chosen)) + 1) / max(len(chosen), 1)
            axis.plot(chosen, share, marker=marker, ms=3, lw=1, label=f"{prototype} ({len(chosen)})")
        axis.axvline(limit, color="0.5", lw=0.8, ls="--")
        axis.set(xscale="log", xlabel=f"|deviation| of the {title} (%)", ylabel="share of crystals", ylim=(0, 1.02))
        axis.set_xlim(left=1e-3 * limit)
    panels[0].legend(fontsize=8)
    for prototype, marker in MARKERS.items():
        chosen = [row for row in rows if row["prototype"] == prototype]
        panels[2].scatter(
            [row["highest_thz_labeller"] for row in chosen], [row["rms_difference_thz"] for row in chosen],
            s=14, marker=marker,
        )  # fmt: skip
    panels[2].set(
        xscale="log",
        yscale="log",
        xlabel="highest frequency, labeller (THz)",
        ylabel="rms difference of frequencies (THz)",
    )
    panels[2].xaxis.set_minor_formatter(NullFormatter())
    figure.savefig(path, dpi=150)


def main() -> None:
    """Compute what is missing, compare, print the numbers and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--crystals", type=Path, required=True, help="crystals.json of the labeller")
    parser.add_argument("--phonons", type=Path, required=True, help="folder that `label --phonons` wrote")
    parser.add_argument("--folder", type=Path, required=True, help="receives the phonons of the model")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    force_field = load_force_field(given.model)
    content = json.loads(given.crystals.read_text())["crystals"]
    theirs = {each["name"]: Crystal(**(each | {"species": tuple(each["species"])})) for each in content}
    mine = {name: relaxed(crystal, force_field) for name, crystal in theirs.items()}
    write_phonons(list(mine.values()), force_field, given.folder)
    rows = {
        name: compared(mine[name], crystal, (given.folder / name, given.phonons / name))
        for name, crystal in theirs.items()
    }
    # Diamond's three are in the labels, but not among the 103 of the benchmark.
    total = summary([row for row in rows.values() if row["prototype"] != "diamond"])
    given.output.write_text(
        json.dumps({"model_key": force_field.key, "summary": total, "crystals": rows}, indent=1) + "\n"
    )
    draw(list(rows.values()), given.output.with_suffix(".png"))
    print(json.dumps(total, indent=1))


if __name__ == "__main__":
    main()
