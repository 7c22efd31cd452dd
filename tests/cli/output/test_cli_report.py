"""Reference values beside the numbers of a report."""

from datetime import UTC, datetime

import pytest

from esen_flows.cli.output.report import print_report, references_of
from esen_flows.schemas.card import resolve_model
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.protocols import HarmonicProtocol, NumericSettings, PhononProtocol
from esen_flows.schemas.provenance import build_provenance


def phonon_document(**summary: object) -> ResultDocument:
    protocol, model = HarmonicProtocol.of(PhononProtocol()), resolve_model("esen_nano")
    return ResultDocument(
        kind="phonon", key="ab" * 32, parent_key="cd" * 32, structure_key="ef" * 32, model_key=model.key,
        model_label="esen_nano", protocol=protocol.model_dump(mode="json"), protocol_hash=protocol.hash(),
        numeric=NumericSettings().model_dump(), numerics_revision=1, state="finished", formula="NaCl",
        chemsys="Cl-Na", elements=["Cl", "Na"], nsites=2, space_group_number=225, space_group_symbol="Fm-3m",
        summary=summary, output=None,
        provenance=build_provenance(device="cpu", threads=1, seconds=1.0, force_evaluations=0),
        created_at=datetime.now(UTC),
    )  # fmt: skip


@pytest.mark.parametrize("charged", [False, True])
def test_frequencies_with_born_charges_have_no_references(charged: bool) -> None:
    """The labeller's 6.1 THz of NaCl is transverse; with charges the highest frequency is longitudinal, at 7.1."""
    document = phonon_document(max_frequency_thz=7.1, a_angstrom=5.69, **({"nac": True} if charged else {}))
    assert [len(references_of(document, field)) for field in ("max_frequency_thz", "a_angstrom")] == [not charged, 1]


@pytest.mark.parametrize("atoms", [2, None])
def test_units_say_per_mole_of_what(atoms: int | None, capsys, monkeypatch) -> None:
    """Summaries of earlier versions do not have the number of atoms."""
    monkeypatch.setenv("COLUMNS", "140")
    counted = {} if atoms is None else {"primitive_atoms": atoms}
    print_report([phonon_document(temperature_kelvin=300.0, entropy_j_per_k_mol=71.5, **counted)])
    line = next(line for line in capsys.readouterr().out.splitlines() if "entropy" in line)
    assert "71.500" in line
    assert ("J/K per mol of primitive cells, 2 atoms" in line) == (atoms is not None)
    assert "J/K per mol of primitive cells" in line
