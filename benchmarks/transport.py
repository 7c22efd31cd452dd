"""Linewidths by this package against phono3py's, side by side in one run: time, memory, deviations.

    python benchmarks/transport.py crystals     # benchmarks/results/transport.json
    python benchmarks/transport.py stage        # the whole transport stage of DFT silicon, adds to the same file
    python benchmarks/transport.py phononDB     # twelve of PhononDB's 103 crystals, with springs for forces
    python benchmarks/transport.py isotopes     # what noise on the frequencies does to scattering by isotopes
    python benchmarks/transport.py plot         # benchmarks/results/transport.png

Silicon and NaCl have DFT forces (../shared); the others are crystals of springs (tests/physics/lattice/transport),
because only symmetry and numbers of atoms decide the time. phono3py computes an even share of the irreducible q-points
where all of them would take longer than `MOST_TRIPLETS`; its time for all is scaled by the number of triplets, and
`share` says so. Processor seconds are of one process on one thread for ours, of all threads for phono3py.
"""

import argparse
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import phono3py
import torch
from ase import Atoms
from ase.build import bulk
from ase.io import read
from phono3py import Phono3py
from phono3py.conductivity.factory import conductivity_calculator
from phonopy.phonon.grid import get_ir_grid_points

from esen_flows.cli.machine import tune_allocator
from esen_flows.physics.lattice.conductivity import conductivity
from esen_flows.physics.lattice.force_sets import read_phono3py_forces
from esen_flows.physics.lattice.masses import mass_variance
from esen_flows.physics.lattice.native_transport import NativeLinewidths
from esen_flows.physics.lattice.transport.grid import triplets_of
from esen_flows.schemas.protocols import TransportProtocol

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results" / "transport.json"
sys.path.insert(0, str(ROOT / "tests" / "physics" / "lattice" / "transport"))
from springs import spring_crystal  # noqa: E402

TEMPERATURES = (300.0, 600.0)
MOST_TRIPLETS = 20_000
SHELLS = [(2.4, 8.0, 10.0), (3.4, 1.0, 1.0)]


def silicon() -> Phono3py:
    folder = SHARED / "phono3py" / "Si-PBEsol"
    return phono3py.load(folder / "phono3py_disp.yaml", forces_fc3_filename=folder / "FORCES_FC3", log_level=0)


def sodium_chloride() -> Phono3py:
    return phono3py.load(SHARED / "phono3py" / "phono3py_params_NaCl222.yaml.xz", log_level=0)


def zinc_oxide() -> Phono3py:
    return spring_crystal(bulk("ZnO", "wurtzite", a=3.25, c=5.2, u=0.382), np.diag([3, 3, 2]), SHELLS)


def perovskite() -> Phono3py:
    places = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    atoms = Atoms("SrTiO3", scaled_positions=places, cell=3.9 * np.eye(3), pbc=True)
    return spring_crystal(atoms, np.diag([2, 2, 2]), SHELLS)


def low_symmetry() -> Phono3py:
    """Ten atoms with one mirror plane; bands are flat along one axis, where phono3py's weights depend on rounding."""
    rng = np.random.default_rng(3)
    half = rng.uniform(0.05, 0.95, (5, 3)) * [1, 0.4, 1]
    places = np.concatenate([half, half * [1, -1, 1]])
    atoms = Atoms("SiGeCOSi" * 2, scaled_positions=places, cell=[[4.6, 0, 0], [0, 5.6, 0], [1.0, 0, 4.8]], pbc=True)
    return spring_crystal(atoms, np.diag([2, 1, 2]), [(2.4, 8.0, 10.0), (4.5, 1.0, 1.0)])


CRYSTALS: dict[str, tuple[Callable[[], Phono3py], tuple[tuple[int, int, int], ...]]] = {
    "Si (DFT)": (silicon, ((11, 11, 11), (19, 19, 19))),
    "NaCl with NAC (DFT)": (sodium_chloride, ((11, 11, 11), (19, 19, 19))),
    "wurtzite ZnO": (zinc_oxide, ((11, 11, 11), (19, 19, 19))),
    "perovskite SrTiO3": (perovskite, ((11, 11, 11), (19, 19, 19))),
    "10 atoms, monoclinic": (low_symmetry, ((5, 5, 5),)),
}


def on_mesh(ph3: Phono3py, mesh: tuple[int, int, int]) -> np.ndarray:
    """Solve the phonons; the irreducible points in phono3py's grid."""
    ph3.mesh_numbers = mesh
    ph3.init_phph_interaction(average_degenerate_weights=True, symmetrize_tetrahedra=True, exclude_gamma_acoustic=True)
    ph3.run_phonon_solver()
    return np.array(ph3.grid.grg2bzg)[get_ir_grid_points(ph3.grid)[0]]


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What comes out, processor seconds and wall seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, time.process_time() - processor, time.perf_counter() - wall


def compare(name: str, ph3: Phono3py, mesh: tuple[int, int, int]) -> dict[str, Any]:
    points = on_mesh(ph3, mesh)
    native = NativeLinewidths(ph3, TEMPERATURES)
    triplets = [len(triplets_of(native._grid, int(native._own_index[point])).second) for point in points]
    step = max(1, -(-sum(triplets) // MOST_TRIPLETS))
    chosen = np.arange(len(points))[step // 2 :: step] if step > 1 else np.arange(len(points))
    torch.set_num_threads(1)
    ours, seconds, wall = timed(lambda: NativeLinewidths(ph3, TEMPERATURES).by_phonons(points))
    torch.set_num_threads(2)
    _, _, wall_of_two = timed(lambda: NativeLinewidths(ph3, TEMPERATURES).by_phonons(points))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    theirs, their_seconds, their_wall = timed(lambda: _by_phono3py(ph3, points[chosen]))
    share = sum(triplets[i] for i in chosen) / sum(triplets)
    scattered = theirs > 0
    assert np.array_equal(ours[:, chosen] > 0, scattered)
    deviation = np.abs(ours[:, chosen][scattered] / theirs[scattered] - 1)
    row = {
        "crystal": name,
        "mesh": list(mesh),
        "bands": int(theirs.shape[2]),
        "q_points": len(points),
        "triplets": sum(triplets),
        "native_cpu_s": seconds,
        "native_wall_s_1_thread": wall,
        "native_wall_s_2_threads": wall_of_two,
        "phono3py_share": share,
        "phono3py_cpu_s": their_seconds / share,
        "phono3py_wall_s": their_wall / share,
        "ratio_cpu": their_seconds / share / seconds,
        "largest_deviation": float(deviation.max()),
        "median_deviation": float(np.median(deviation)),
        "peak_memory_gb_so_far": memory,
    }
    print(json.dumps(row), flush=True)
    return row


def _by_phono3py(ph3: Phono3py, points: np.ndarray) -> np.ndarray:
    temperatures = np.array(TEMPERATURES)
    made = conductivity_calculator(
        ph3.phph_interaction, temperatures, [None], method="std-rta", lang="Rust", grid_points=points
    )
    made.run()
    return np.array(made.gamma[0])


def crystals() -> Iterator[dict[str, Any]]:
    for name, (make, meshes) in CRYSTALS.items():
        ph3 = make()
        for mesh in meshes:
            yield compare(name, ph3, mesh)


def stage() -> dict[str, Any]:
    """`conductivity` of DFT silicon at 19^3 with isotopes, a boundary and Wigner transport, by both implementations."""
    folder = SHARED / "phono3py" / "Si-PBEsol"
    forces = read_phono3py_forces(folder / "phono3py_disp.yaml", folder / "FORCES_FC3")[0]
    protocol = TransportProtocol(
        mesh=(19, 19, 19),
        temperatures_kelvin=(300.0,),
        methods=("rta", "wigner"),
        isotope_scattering=True,
        boundary_mfp_micrometre=10.0,
    )
    found: dict[str, Any] = {
        "crystal": "Si (DFT)",
        "mesh": [19, 19, 19],
        "isotopes": True,
        "methods": ["rta", "wigner"],
    }
    torch.set_num_threads(1)
    for backend in ("native", "Rust"):
        output, seconds, wall = timed(lambda backend=backend: conductivity(forces, protocol, backend=backend))
        found[f"{backend}_cpu_s"], found[f"{backend}_wall_s"] = seconds, wall
        found[f"{backend}_transport_wall_s"] = output.seconds_transport
        found[f"{backend}_kappa_rta"] = float(output.methods["rta"].kappa_w_per_m_k[0, 0])
        found[f"{backend}_kappa_wigner"] = float(output.methods["wigner"].kappa_w_per_m_k[0, 0])
    found["ratio_cpu"] = found["Rust_cpu_s"] / found["native_cpu_s"]
    print(json.dumps(found), flush=True)
    return found


def phonondb() -> dict[str, Any]:
    """Linewidths of four crystals of each structure type, isotopes too, with their own meshes and supercells."""
    structures = read(SHARED / "phonondb_103" / "phononDB-PBE-structures.extxyz", index=":")
    by_type: dict[int, list[Atoms]] = {}
    for atoms in structures:
        by_type.setdefault(int(atoms.info["symm.no"]), []).append(atoms)
    rows, total = [], 0.0
    torch.set_num_threads(1)
    for number, members in sorted(by_type.items()):
        seconds = []
        for atoms in members[:: max(1, len(members) // 4)][:4]:
            seconds.append(_transport_seconds(atoms))
            row = {"formula": str(atoms.symbols), "space_group": number, "cpu_s": seconds[-1]}
            rows.append(row)
            print(json.dumps(row), flush=True)
        total += len(members) * float(np.mean(seconds))
    return {"members": rows, "counts": {str(n): len(m) for n, m in by_type.items()}, "all_103_cpu_hours": total / 3600}


def _transport_seconds(atoms: Atoms) -> float:
    """Processor seconds of linewidths by phonons and isotopes on the crystal's own mesh; force constants are given."""
    nearest = np.sort(atoms.get_all_distances(mic=True)[0])[1]
    ph3 = spring_crystal(
        atoms, np.array(atoms.info["fc3_supercell"]), [(1.2 * nearest, 8.0, 10.0), (1.75 * nearest, 1.0, 1.0)], "auto"
    )
    points = on_mesh(ph3, tuple(atoms.info["q_mesh"]))

    def transport() -> None:
        native = NativeLinewidths(ph3, [300.0])
        native.by_phonons(points)
        native.by_isotopes(points, _variances(ph3))

    return timed(transport)[1]


def isotopes() -> list[dict[str, Any]]:
    """Change of isotope linewidths and of the conductivity (RTA, 300 K) by noise on the frequencies."""
    rows = []
    for name, make, mesh in (("Si (DFT)", silicon, (11, 11, 11)), ("wurtzite ZnO", zinc_oxide, (9, 9, 6))):
        ph3 = make()
        points = on_mesh(ph3, mesh)
        gamma = NativeLinewidths(ph3, [300.0]).by_phonons(points)
        frequencies = ph3.get_phonon_data()[0]
        exact = frequencies.copy()
        noise = np.random.default_rng(0).standard_normal(frequencies.shape) * (exact > 0.1)
        before = {kind: _isotope_linewidths(ph3, points, kind) for kind in ("native", "Rust")}
        for level in (1e-14, 1e-12, 1e-10, 1e-8):
            frequencies[:] = exact + level * noise
            for kind, linewidths in before.items():
                noisy = _isotope_linewidths(ph3, points, kind)
                scattered = linewidths > 1e-12 * linewidths.max()
                change = np.abs(noisy[scattered] / linewidths[scattered] - 1)
                frequencies[:] = exact
                kappa = [_kappa(ph3, points, gamma, isotope) for isotope in (linewidths, noisy)]
                rows.append(
                    {
                        "crystal": name,
                        "mesh": list(mesh),
                        "noise_thz": level,
                        "backend": kind,
                        "moved_by_more_than_0.1_percent": float((change > 1e-3).mean()),
                        "largest_change": float(change.max()),
                        "kappa_w_per_m_k": kappa[0],
                        "change_of_kappa": abs(kappa[1] / kappa[0] - 1),
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
                frequencies[:] = exact + level * noise
        frequencies[:] = exact
    return rows


def _variances(ph3: Phono3py) -> np.ndarray:
    return np.array([mass_variance(symbol) for symbol in ph3.primitive.symbols])


def _isotope_linewidths(ph3: Phono3py, points: np.ndarray, kind: str) -> np.ndarray:
    if kind == "native":
        return NativeLinewidths(ph3, [300.0]).by_isotopes(points, _variances(ph3))
    made = _rta(ph3, points, is_isotope=True)
    made.gamma = np.ones((1, 1, len(points), ph3.get_phonon_data()[0].shape[1]))  # not of interest here
    made.run()
    return np.array(made.gamma_isotope[0])


def _kappa(ph3: Phono3py, points: np.ndarray, gamma: np.ndarray, isotope: np.ndarray) -> float:
    made = _rta(ph3, points, is_isotope=True)
    made.gamma, made.gamma_isotope = gamma[None], isotope[None]
    made.run()
    return float(made.kappa[0, 0, :3].mean())


def _rta(ph3: Phono3py, points: np.ndarray, **options: Any) -> Any:
    kelvin = np.array([300.0])
    return conductivity_calculator(
        ph3.phph_interaction, kelvin, [None], method="std-rta", lang="Rust", grid_points=points, **options
    )


def plot() -> None:
    import matplotlib.pyplot as plt

    results = json.loads(RESULTS.read_text())
    rows = results["crystals"]
    place = np.arange(len(rows))
    figure, axes = plt.subplots(figsize=(8, 4.5), constrained_layout=True)
    axes.barh(place - 0.2, [row["phono3py_cpu_s"] for row in rows], 0.4, label="phono3py", color="#D55E00")
    axes.barh(place + 0.2, [row["native_cpu_s"] for row in rows], 0.4, label="native", color="#0072B2")
    for at, row in zip(place, rows, strict=True):
        axes.text(row["phono3py_cpu_s"] * 1.1, at - 0.2, f"{row['ratio_cpu']:.1f} x", va="center", fontsize=8)
    axes.set(xscale="log", xlabel="processor seconds for all linewidths", yticks=place)
    axes.set_yticklabels([f"{row['crystal']}, {row['mesh'][0]}³" for row in rows])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(RESULTS.with_suffix(".png"), dpi=150)

    figure, axes = plt.subplots(figsize=(6, 4), constrained_layout=True)
    for crystal, marker in (("Si (DFT)", "o"), ("wurtzite ZnO", "s")):
        for kind, label, colour in (("Rust", "phono3py", "#D55E00"), ("native", "native", "#0072B2")):
            found = [row for row in results["isotopes"] if (row["crystal"], row["backend"]) == (crystal, kind)]
            noise = [row["noise_thz"] for row in found]
            change = [max(row["change_of_kappa"], 1e-16) for row in found]
            axes.loglog(noise, change, marker=marker, color=colour, label=f"{crystal}, {label}")
    axes.set(xlabel="noise on the frequencies (THz)", ylabel="relative change of the conductivity")
    axes.legend(frameon=False, fontsize=8, loc="center left")
    figure.savefig(ROOT / "docs" / "figures" / "isotope_noise.png", dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("crystals", "stage", "phononDB", "isotopes", "plot"))
    part = parser.parse_args().part
    if part == "plot":
        plot()
        return
    tune_allocator()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["machine"] = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_average_before": os.getloadavg()[0],
        **{name: version(name) for name in ("phono3py", "phonopy", "torch", "numpy")},
    }
    work: dict[str, Callable[[], Any]] = {
        "crystals": lambda: list(crystals()),
        "stage": stage,
        "phononDB": phonondb,
        "isotopes": isotopes,
    }
    results[part] = work[part]()
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
