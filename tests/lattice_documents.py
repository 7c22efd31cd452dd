"""Documents to draw: a linear chain with two kinds of atoms, whose phonons are known in closed form."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from esen_flows.schemas.documents import Kind, Provenance, RelaxOutput, ResultDocument, StructureData
from esen_flows.schemas.lattice_documents import ConductivityOutput, PhononOutput, TransportResult

MakeDocument = Callable[..., ResultDocument]


def chain() -> StructureData:
    """Two atoms, Na and Cl, in a cubic cell."""
    return StructureData(
        numbers=np.array([11, 17]),
        positions_angstrom=np.array([[0.0, 0.0, 0.0], [2.8, 0.0, 0.0]]),
        cell_angstrom=5.6 * np.eye(3),
        pbc=np.array([True, True, True]),
    )


def envelope(kind: Kind, output: dict[str, Any] | None, **fields: Any) -> ResultDocument:
    content: dict[str, Any] = {
        "kind": kind,
        "key": "c0ffee" + 58 * "0",
        "parent_key": 64 * "1",
        "structure_key": 64 * "2",
        "model_key": 64 * "3",
        "model_label": "chain_model",
        "protocol": {},
        "protocol_hash": 64 * "4",
        "numeric": {},
        "numerics_revision": 1,
        "state": "finished" if output is not None else "failed",
        "formula": "NaCl",
        "chemsys": "Cl-Na",
        "elements": ["Cl", "Na"],
        "nsites": 2,
        "space_group_number": None,
        "space_group_symbol": None,
        "output": output,
        "provenance": Provenance(
            package_version="0", git_revision=None, libraries={}, python="3", device="cpu", host="here", threads=1,
            seconds=1.0, force_evaluations=0,
        ),
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }  # fmt: skip
    return ResultDocument(**{**content, **fields})


def chain_frequencies(q: np.ndarray, stiffness: float) -> np.ndarray:
    """(n, 2) frequencies of a chain with masses 1 and 2: Ashcroft and Mermin, Solid State Physics, eq. 22.37."""
    root = np.sqrt(np.maximum(1.0 + 4.0 + 4.0 * np.cos(2.0 * np.pi * q), 0.0))
    squares = stiffness / 2.0 * np.stack([3.0 - root, 3.0 + root], axis=1)
    return np.sqrt(np.maximum(squares, 0.0))


@pytest.fixture
def phonon_document() -> MakeDocument:
    """Phonons of the chain along Γ-X|U-Γ; `length` stretches the path, `stiffness` the bands."""

    def make(*, length: float = 1.0, stiffness: float = 9.0, shift_thz: float = 0.0, **fields: Any) -> ResultDocument:
        fraction = np.linspace(0.0, 1.0, 41)
        first = chain_frequencies(0.5 * fraction, stiffness) - shift_thz
        frequencies = np.linspace(-1.0, 6.0, 200)
        heights = np.exp(-((frequencies - 4.0) ** 2))
        output = PhononOutput(
            structure=chain(),
            verdict="unstable" if shift_thz else "stable",
            instability=None,
            max_frequency_thz=float(first.max()),
            min_frequency_thz=float(first.min()),
            band_labels=["GAMMA", "X", "U", "GAMMA"],
            band_label_distances=length * np.array([0.0, 1.0, 1.0, 1.7]),
            band_distances=[length * fraction, length * (1.0 + 0.7 * fraction)],
            band_frequencies_thz=[first, first[::-1]],
            dos_frequencies_thz=frequencies,
            dos_states_per_thz=heights,
            projected_dos_states_per_thz=np.stack([0.25 * heights, 0.75 * heights]),
            temperatures_kelvin=np.array([300.0]),
            free_energy_kj_per_mol=np.zeros(1),
            entropy_j_per_k_mol=np.zeros(1),
            heat_capacity_j_per_k_mol=np.zeros(1),
            force_constants_ev_per_angstrom2=np.zeros((2, 2, 3, 3)),
        )
        return envelope("phonon", output.model_dump(), **fields)

    return make


@pytest.fixture
def conductivity_document() -> MakeDocument:
    """kappa proportional to 1/T; `coherence` is the coherences' constant part, `anisotropy` raises zz."""

    def make(*, coherence: float = 0.01, anisotropy: float = 0.0, scale: float = 1.0, **fields: Any) -> ResultDocument:
        temperatures = np.array([100.0, 200.0, 300.0, 500.0, 1000.0])
        particle = np.zeros((5, 6))
        particle[:, :3] = scale * (30000.0 / temperatures)[:, None] * np.array([1.0, 1.0, 1.0 + anisotropy])
        waves = np.zeros((5, 6))
        waves[:, :3] = coherence
        frequencies = np.linspace(0.0, 8.0, 81)
        output = ConductivityOutput(
            structure=chain(),
            temperatures_kelvin=temperatures,
            mesh=(11, 11, 11),
            methods={
                "rta": TransportResult(
                    kappa_w_per_m_k=particle, kappa_particle_w_per_m_k=None, kappa_coherence_w_per_m_k=None
                ),
                "wigner": TransportResult(
                    kappa_w_per_m_k=particle + waves, kappa_particle_w_per_m_k=particle, kappa_coherence_w_per_m_k=waves
                ),
            },
            frequencies_thz=np.zeros((1, 6)),
            q_points=np.zeros((1, 3)),
            q_weights=np.ones(1),
            linewidths_thz=np.zeros((5, 1, 6)),
            group_velocities_m_per_s=np.zeros((1, 6, 3)),
            cumulative_frequencies_thz=frequencies,
            cumulative_kappa_w_per_m_k=scale * 100.0 * np.sin(frequencies * np.pi / 16.0) ** 2,
            cumulative_temperature_kelvin=300.0,
            max_frequency_thz=8.0,
            min_frequency_thz=0.0,
            fc2_ev_per_angstrom2=np.zeros((2, 2, 3, 3)),
            fc3_ev_per_angstrom3=np.zeros((2, 2, 2, 3, 3, 3)),
            seconds_force_constants=1.0,
            seconds_transport=1.0,
            phono3py_version="4.8.2",
            backend="C",
        )
        return envelope("conductivity", output.model_dump(), **fields)

    return make


@pytest.fixture
def relax_document() -> MakeDocument:
    """Energies that fall by halves."""

    def make(*, converged: bool = True, **fields: Any) -> ResultDocument:
        output = RelaxOutput(
            structure=chain(),
            energy_ev=-6.0,
            energy_per_atom_ev=-3.0,
            forces_ev_per_angstrom=np.zeros((2, 3)),
            stress_ev_per_angstrom3=np.zeros((3, 3)),
            n_steps=12,
            converged=converged,
            fmax_ev_per_angstrom=4.2e-5,
            volume_per_atom_angstrom3=87.8,
            space_group_initial=None,
            space_group_final=None,
            energies_ev=np.append(-6.0 + 0.1 * 0.5 ** np.arange(12), -6.0),
        )
        return envelope("relax", output.model_dump(), **fields)

    return make
