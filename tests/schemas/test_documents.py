"""Documents: structures survive, unknown fields do not."""

from datetime import UTC, datetime

import numpy as np
import pytest
from ase.build import bulk
from pydantic import ValidationError

from esen_flows.schemas.documents import Failure, ResultDocument, StructureData
from esen_flows.schemas.keys import atoms_key
from esen_flows.schemas.lattice_documents import Instability
from esen_flows.schemas.provenance import build_provenance


def test_structure_survives_to_the_last_bit() -> None:
    atoms = bulk("GaAs", "zincblende", 5.65)
    atoms.positions += np.random.default_rng(0).normal(0, 0.1, (2, 3))
    atoms.pbc = (True, False, True)
    back = StructureData.from_atoms(atoms).to_atoms()
    np.testing.assert_array_equal(back.positions, atoms.positions)
    np.testing.assert_array_equal(back.cell.array, atoms.cell.array)
    assert atoms_key(back) == atoms_key(atoms)
    assert back.get_chemical_symbols() == ["Ga", "As"]


def test_lists_become_arrays_and_unknown_fields_are_refused() -> None:
    instability = Instability(frequency_thz=-1.5, q_point=[0.5, 0, 0], displacement_pattern=[[0, 0, 1.0]])
    assert instability.displacement_pattern.shape == (1, 3)
    with pytest.raises(ValidationError, match="mode"):
        Instability(frequency_thz=-1.5, q_point=[0, 0, 0], displacement_pattern=[], mode=3)  # type: ignore[call-arg]


def test_a_failed_document_says_whether_it_is_final() -> None:
    provenance = build_provenance(device="cpu", threads=1, seconds=2.0, force_evaluations=500)
    document = ResultDocument(
        kind="relax",
        key="k",
        parent_key="p",
        structure_key="s",
        model_key="m",
        model_label="esen_silicon",
        protocol={},
        protocol_hash="h",
        numeric={},
        numerics_revision=1,
        state="failed",
        failure=Failure(error="NotConvergedError", message="500 steps", final=True),
        formula="Si",
        chemsys="Si",
        elements=["Si"],
        nsites=2,
        space_group_number=227,
        space_group_symbol="Fd-3m",
        output=None,
        provenance=provenance,
        created_at=datetime(2026, 11, 21, tzinfo=UTC),
    )
    assert ResultDocument.model_validate(document.model_dump()) == document
    with pytest.raises(ValidationError, match="state"):
        ResultDocument(**document.model_dump() | {"state": "running"})
