"""`esen-flows fields`: what --set changes."""

import pytest
from command_line import run

from esen_flows.cli.overrides import with_overrides
from esen_flows.cli.usage import UsageError
from esen_flows.schemas.properties import OFFERED, PROPERTIES
from esen_flows.schemas.protocol_fields import field_names
from esen_flows.schemas.protocols import PhononProtocol


@pytest.mark.parametrize("kind", OFFERED)
def test_every_field_has_its_value_and_meaning(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    entry = PROPERTIES[kind]  # type: ignore[index]
    assert run("fields", entry.command) == 0
    rows = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert [row[0] for row in rows] == field_names(entry.protocol())
    assert all(len(row) == 3 for row in rows)
    values = [f"{name}={value}" for name, value, _ in rows]
    assert with_overrides(entry.protocol(), values) == entry.protocol()  # they are written as --set reads them


def test_an_unknown_property_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fields", "colour") == 2
    assert "no property 'colour'; choose one of relax, " in capsys.readouterr().err
    assert run("fields", "kapa") == 2
    assert "no property 'kapa'; did you mean kappa? properties: relax, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("displacment_angstrom", "displacement.displacement_angstrom"),
        ("relax.max_step", "relax.max_steps"),
        ("fmax", "relax.fmax_ev_per_angstrom"),
        ("Mesh", "mesh"),
    ],
)
def test_a_misspelt_field_gets_a_suggestion(name: str, meant: str) -> None:
    with pytest.raises(UsageError, match=rf"{name}: no such field; did you mean {meant}\? valid fields: mesh"):
        with_overrides(PhononProtocol(), [f"{name}=1"])


def test_nothing_is_suggested_for_what_resembles_nothing() -> None:
    with pytest.raises(UsageError, match="no such field; valid fields"):
        with_overrides(PhononProtocol(), ["zzz=1"])
