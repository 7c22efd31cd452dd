"""Reports: reference values of the same settings alone, hints, and what was stored."""

from datetime import UTC, datetime
from typing import Any

import pytest

from esen_flows.cli.output.report import print_report, references_of
from esen_flows.schemas.card import resolve_model
from esen_flows.schemas.documents import Kind, ResultDocument
from esen_flows.schemas.protocols import DisplacementProtocol, HarmonicProtocol, NumericSettings, PhononProtocol
from esen_flows.schemas.provenance import build_provenance


def result(kind: Kind, key: str, summary: dict[str, Any], **fields: Any) -> ResultDocument:
    """A result of rocksalt by esen_nano."""
    protocol = DisplacementProtocol() if kind == "forces" else HarmonicProtocol.of(PhononProtocol())
    content: dict[str, Any] = {
        "kind": kind, "key": 32 * key, "parent_key": 32 * "cd", "structure_key": 32 * "ef",
        "model_key": resolve_model("esen_nano").key, "model_label": "esen_nano",
        "protocol": protocol.model_dump(mode="json"), "protocol_hash": protocol.hash(),
        "numeric": NumericSettings().model_dump(), "numerics_revision": 1, "state": "finished", "formula": "NaCl",
        "chemsys": "Cl-Na", "elements": ["Cl", "Na"], "nsites": 2, "space_group_number": 225,
        "space_group_symbol": "Fm-3m", "summary": summary, "output": None,
        "provenance": build_provenance(device="cpu", threads=1, seconds=1.0, force_evaluations=0),
        "created_at": datetime.now(UTC),
    }  # fmt: skip
    return ResultDocument(**{**content, **fields})


def phonons(*, atoms: int = 64, summary: dict[str, Any] | None = None, **fields: Any) -> list[ResultDocument]:
    """Displaced supercells of some size, and the phonons from them."""
    forces = result("forces", "0a", {"atoms_fc2": atoms, "displacements_fc2": 2})
    values = {"verdict": "stable", "max_frequency_thz": 6.3, "min_frequency_thz": -4.333e-07, "a_angstrom": 5.69}
    return [forces, result("phonon", "0b", {**values, **(summary or {})}, **fields)]


def compared(steps: list[ResultDocument]) -> list[str]:
    """Fields of the summary with a reference value."""
    return [field for field in steps[-1].summary if references_of(steps, field)]


def test_references_are_those_of_the_same_crystal_and_supercell() -> None:
    """The card of esen_nano has 6.1 THz of rocksalt NaCl by its labeller, in supercells of 64 atoms."""
    assert compared(phonons()) == ["max_frequency_thz", "a_angstrom"]
    assert compared(phonons(atoms=216)) == ["a_angstrom"]
    assert compared(phonons()[1:]) == ["a_angstrom"]  # the step with the supercells is not at hand
    assert compared(phonons(space_group_number=221)) == []  # of the caesium chloride structure


def test_frequencies_with_born_charges_have_no_references() -> None:
    """The labeller's 6.1 THz of NaCl is transverse; with charges the highest frequency is longitudinal, at 7.1."""
    assert compared(phonons(summary={"nac": True})) == ["a_angstrom"]


def test_noise_does_not_look_like_an_instability(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(phonons())
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "lowest frequency" in line]
    assert line.split() == ["lowest", "frequency", "0.000", "THz"]


@pytest.mark.parametrize(
    ("fields", "hinted"),
    [
        ({}, True),
        ({"summary": {"nac": True}}, False),
        ({"formula": "Si", "elements": ["Si"]}, False),
        ({"formula": "CuAu", "elements": ["Au", "Cu"]}, False),
    ],
)
def test_lattice_results_of_polar_crystals_without_charges_say_what_is_missing(
    fields: dict[str, Any], hinted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    print_report(phonons(**fields))
    assert ("LO-TO splitting: --born FILE" in " ".join(capsys.readouterr().out.split())) is hinted


def test_stored_steps_are_marked(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(phonons(), stored={32 * "0a"})
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith(", from the database") for line in lines if " force evaluations on " in line] == [True, False]


@pytest.mark.parametrize("atoms", [2, None])
def test_units_say_per_mole_of_what(atoms: int | None, capsys, monkeypatch) -> None:
    """Summaries of earlier versions do not have the number of atoms."""
    monkeypatch.setenv("COLUMNS", "140")
    counted = {} if atoms is None else {"primitive_atoms": atoms}
    print_report(phonons(summary={"temperature_kelvin": 300.0, "entropy_j_per_k_mol": 71.5, **counted}))
    line = next(line for line in capsys.readouterr().out.splitlines() if "entropy" in line)
    assert "71.500" in line
    assert ("J/K per mol of primitive cells, 2 atoms" in line) == (atoms is not None)
    assert "J/K per mol of primitive cells" in line


@pytest.mark.parametrize("domain", ["inside", "outside", "unknown", None])
def test_a_report_warns_of_what_the_force_field_does_not_know(domain: str | None, capsys) -> None:
    print_report(phonons(summary={"domain": domain} if domain else {}))
    warned = "esen_nano was not trained on any structure with exactly the elements Cl, Na" in capsys.readouterr().out
    assert warned == (domain == "outside")


@pytest.mark.parametrize(
    ("domain", "value", "words"),
    [
        ("inside", 0.7, None),
        ("near", 0.7, "not trained on any structure with exactly the elements Cl, Na, but on atoms like these (extra"),
        ("outside", 4.25, "unlike all Cl, Na atoms that esen_nano was trained on (extrapolation 4.2, limit 1.50)"),
    ],
)
def test_a_report_says_how_unlike_the_training_data_a_structure_is(domain, value, words, capsys) -> None:
    print_report(phonons(summary={"domain": domain, "extrapolation": value, "extrapolation_limit": 1.5}))
    printed = capsys.readouterr().out
    assert "warning" not in printed if words is None else words in printed
