"""Made-up relaxations and conductivities, as large as those of WBM's crystals; no number in them means anything."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from esen_flows.schemas.documents import Failure, Provenance, RelaxOutput, ResultDocument, StructureData
from esen_flows.schemas.keys import atoms_key, result_key
from esen_flows.schemas.protocols import NumericSettings, RelaxProtocol
from esen_flows.structures.identity import reduced_formula

MODELS = ("esen_30m_oam", "esen_silicon")
FIRST_MODEL_SHARE = 0.9
FAILED_SHARE = 0.005
MEAN_SITES = 8.0
START = datetime(2026, 11, 1, tzinfo=UTC)
PROVENANCE = Provenance(
    package_version="0.1.0",
    git_revision="0" * 40,
    libraries=dict.fromkeys(("ase", "esen_flows", "numpy", "phono3py", "phonopy", "spglib", "torch"), "1.2.3"),
    python="3.11.7",
    device="cuda:0",
    host="node-0123",
    threads=1,
    seconds=1.5,
    force_evaluations=40,
)
# Much oxygen, no noble gases, nothing beyond bismuth.
_ELEMENTS = np.array([z for z in range(1, 84) if z not in (2, 10, 18, 36, 43, 54, 61)] + 10 * [8])
_SYMBOLS = {216: "F-43m", 225: "Fm-3m", 227: "Fd-3m", 62: "Pnma", 14: "P2_1/c", 2: "P-1", 194: "P6_3/mmc"}
_NUMBERS = list(_SYMBOLS)
_PROTOCOL_FIELDS = RelaxProtocol().model_dump(mode="json")
_PROTOCOL_HASH = RelaxProtocol().hash()
_NUMERIC_FIELDS = NumericSettings().model_dump(mode="json")


def relaxations(count: int, first: int = 0, seed: int = 0) -> Iterator[tuple[Atoms, dict[str, Any], ResultDocument]]:
    """Input structures, what they are called, and their relaxations."""
    random = np.random.default_rng(seed)
    for number in range(first, first + count):
        atoms, identity = _crystal(random)
        identity |= {"material_ids": [f"wbm-{number}"], "tags": [f"step-{number % 5 + 1}"]}
        yield atoms, identity, _relaxation(atoms, identity, number, random)


def conductivities(count: int, seed: int = 1000) -> Iterator[ResultDocument]:
    """Conductivities without their arrays: only their summaries are looked at."""
    random = np.random.default_rng(seed)
    for number in range(count):
        atoms, identity = _crystal(random)
        kappa = float(10 ** random.normal(0.7, 0.6))
        summary = {
            "temperature_kelvin": 300.0,
            "kappa_rta_w_per_m_k": kappa,
            "kappa_wigner_w_per_m_k": kappa * 1.05,
            **_lattice(atoms, identity),
            "max_frequency_thz": 15.0,
            "min_frequency_thz": -0.01,
            "mesh": "19x19x19",
            "phono3py": "4.8.0 (Rust)",
        }
        yield _document("conductivity", atoms, identity, number, random, summary=summary, output={})


def _crystal(random: np.random.Generator) -> tuple[Atoms, dict[str, Any]]:
    n_sites = int(np.clip(random.lognormal(np.log(MEAN_SITES) - 0.245, 0.7), 1, 80))
    kinds = _ELEMENTS[random.integers(0, len(_ELEMENTS), random.integers(2, 5))]
    numbers = np.resize(kinds, n_sites)
    cell = np.diag(random.normal(1.0, 0.05, 3) * (16.0 * n_sites) ** (1 / 3)) + random.normal(0.0, 0.3, (3, 3))
    atoms = Atoms(np.sort(numbers), scaled_positions=random.random((n_sites, 3)), cell=cell, pbc=True)
    symbols, counts = np.unique(atoms.numbers, return_counts=True)
    elements = sorted(chemical_symbols[z] for z in symbols)
    space_group = _NUMBERS[random.integers(len(_NUMBERS))] if random.random() < 0.3 else int(random.integers(1, 231))
    return atoms, {
        "formula": reduced_formula({chemical_symbols[z]: int(n) for z, n in zip(symbols, counts, strict=True)}),
        "chemsys": "-".join(elements),
        "elements": elements,
        "nsites": n_sites,
        "space_group_number": space_group,
        "space_group_symbol": _SYMBOLS.get(space_group, f"S{space_group}"),
    }


def _relaxation(atoms: Atoms, identity: dict[str, Any], number: int, random: np.random.Generator) -> ResultDocument:
    if random.random() < FAILED_SHARE:
        failure = Failure(error="NotConvergedError", message="the relaxation stopped after 500 steps", final=True)
        return _document("relax", atoms, identity, number, random, state="failed", failure=failure, output=None)
    n_sites, steps, energy = len(atoms), int(random.integers(10, 70)), float(random.normal(-5.5, 1.5))
    relaxed = atoms.copy()
    relaxed.positions += random.normal(0.0, 0.05, (n_sites, 3))
    output = RelaxOutput(
        structure=StructureData.from_atoms(relaxed),
        energy_ev=energy * n_sites,
        energy_per_atom_ev=energy,
        forces_ev_per_angstrom=random.normal(0.0, 1e-4, (n_sites, 3)),
        stress_ev_per_angstrom3=random.normal(0.0, 1e-5, (3, 3)),
        n_steps=steps,
        converged=True,
        fmax_ev_per_angstrom=float(random.uniform(0, 1e-3)),
        volume_per_atom_angstrom3=relaxed.get_volume() / n_sites,
        space_group_initial=identity["space_group_number"],
        space_group_final=identity["space_group_number"],
        energies_ev=energy * n_sites + np.exp(-np.arange(steps + 1) / 10.0),
    )
    names = ("energy_per_atom_ev", "volume_per_atom_angstrom3", "fmax_ev_per_angstrom", "n_steps", "converged")
    summary = {name: getattr(output, name) for name in names} | {
        **_lattice(relaxed, identity),
        "pressure_gpa": float(random.normal(0.0, 1e-3)),
        "space_group_initial": output.space_group_initial,
        "space_group_final": output.space_group_final,
    }
    return _document("relax", atoms, identity, number, random, summary=summary, output=output.model_dump())


def _lattice(atoms: Atoms, identity: dict[str, Any]) -> dict[str, Any]:
    lengths = zip(("a_angstrom", "b_angstrom", "c_angstrom"), map(float, atoms.cell.lengths()), strict=True)
    return {**dict(lengths), "space_group": f"{identity['space_group_symbol']} ({identity['space_group_number']})"}


def _document(
    kind: str, atoms: Atoms, identity: dict[str, Any], number: int, random: np.random.Generator, **fields: Any
) -> ResultDocument:
    structure_key = atoms_key(atoms)
    label = MODELS[0] if random.random() < FIRST_MODEL_SHARE else MODELS[1]
    model_key = hashlib.sha256(label.encode()).hexdigest()
    return ResultDocument(
        kind=kind,
        key=result_key(kind, _PROTOCOL_HASH, structure_key, model_key, _NUMERIC_FIELDS, 1),
        parent_key=structure_key,
        structure_key=structure_key,
        model_key=model_key,
        model_label=label,
        protocol=_PROTOCOL_FIELDS,
        protocol_hash=_PROTOCOL_HASH,
        numeric=_NUMERIC_FIELDS,
        numerics_revision=1,
        provenance=PROVENANCE,
        created_at=START + timedelta(seconds=number),
        **{"state": "finished", **identity, **fields},
    )
