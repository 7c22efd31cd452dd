"""`--set key=value` reaches nested fields and refuses what a protocol refuses."""

from typing import Any

import pytest

from esen_flows.cli.overrides import with_overrides
from esen_flows.cli.usage import UsageError
from esen_flows.schemas.protocol_fields import field_names, parse_value
from esen_flows.schemas.protocols import ConductivityProtocol, PhononProtocol, RelaxProtocol


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.01", 0.01),
        ("1e-3", 1e-3),
        ("9", 9),
        ("true", True),
        ("null", None),
        ("fix", "fix"),
        ("[9, 9, 9]", [9, 9, 9]),
        ("9,9,9", [9, 9, 9]),
        ("rta,wigner", ["rta", "wigner"]),
        ('["rta"]', ["rta"]),
        ("[[2,0,0],[0,2,0],[0,0,2]]", [[2, 0, 0], [0, 2, 0], [0, 0, 2]]),
    ],
)
def test_values(text: str, value: Any) -> None:
    assert parse_value(text) == value


def test_nothing_set_is_the_default() -> None:
    assert with_overrides(ConductivityProtocol(), []) == ConductivityProtocol()


def test_nested_fields_keep_the_other_defaults_of_their_protocol() -> None:
    found = with_overrides(ConductivityProtocol(), ["displacement.displacement_angstrom=0.01", "relax.max_steps=2000"])
    assert found.displacement.displacement_angstrom == 0.01
    assert found.displacement.order == 3  # DisplacementProtocol's own default is 2
    assert found.relax.max_steps == 2000
    assert found.relax.symmetry == "fix"  # RelaxProtocol's own default is free


def test_lists_and_repeated_fields() -> None:
    found = with_overrides(ConductivityProtocol(), ["mesh=9,9,9", "mesh=[5, 5, 7]", "methods=rta,wigner"])
    assert found.mesh == (5, 5, 7)
    assert found.methods == ("rta", "wigner")
    found = with_overrides(ConductivityProtocol(), ["methods=lbte", "temperatures_kelvin=300"])
    assert (found.methods, found.temperatures_kelvin) == (("lbte",), (300.0,))


def test_a_diagonal_supercell() -> None:
    found = with_overrides(PhononProtocol(), ["displacement.fc2_supercell=3,3,2"])
    assert found.displacement.fc2_supercell == ((3, 0, 0), (0, 3, 0), (0, 0, 2))


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("mesh", "is not key=value"),
        ("mesh=", "is not key=value"),
        ("mash=9,9,9", r"--set mash: no such field; did you mean mesh\? valid fields: mesh, temperatures_kelvin, "),
        (
            "displacement=0.01",
            "no such field; did you mean displacement.displacement_angstrom.*valid fields: .*displacement.order",
        ),
        ("displacement.displacement_angstrom=5", r"displacement_angstrom: .*less than or equal to 0.5 \(got 5\)"),
        ("displacement.displacement_angstrom=0", r"displacement_angstrom: .*greater than or equal to .* \(got 0\)"),
        ("boundary_mfp_micrometre=-1", r"boundary_mfp_micrometre: .*greater than 0 \(got -1\)"),
        ("mesh=9,9", r"--set mesh: too few values \(got \[9, 9\]\)$"),
        ("displacement.fc3_supercell=0,1,1", "--set displacement.fc3_supercell: a supercell needs a positive determ"),
        ("mesh=9", r"--set mesh: several values are needed, with commas between \(got 9\)"),
        ("mesh=0,0,0", r"--set mesh: Input should be greater than 0 \(got 0\)$"),
        ("relax.cell_mask=1,0,0", r"--set relax.cell_mask: too few values \(got \[1, 0, 0\]\)$"),
        ("methods=lbt", r"--set methods: .*'rta', 'wigner' or 'lbte' \(got 'lbt'\)"),
        ("methods=[]", "--set methods: .* at least 1 item"),
        ("relax.fmax_ev_per_angstrom=Infinity", r"relax.fmax_ev_per_angstrom: .*finite number \(got inf\)"),
        ("mesh=9,9,x", r"--set mesh: .*integer.* \(got 'x'\)"),
        ("relax.symmetry=keep", r"relax.symmetry: .*'free', 'fix', 'lock' or 'explore' \(got 'keep'\)"),
        ("temperatures_kelvin=300,100", "temperatures_kelvin: .*must be ascending"),
    ],
)
def test_what_is_refused(assignment: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        with_overrides(ConductivityProtocol(), [assignment])


def test_every_listed_field_can_be_set() -> None:
    for protocol in (RelaxProtocol(), PhononProtocol(), ConductivityProtocol()):
        for name in field_names(protocol):
            value: Any = protocol
            for part in name.split("."):
                value = getattr(value, part)
            if value is not None:
                text = str(value).replace("'", '"').replace("(", "[").replace(")", "]").replace("True", "true")
                assert with_overrides(protocol, [f"{name}={text.replace('False', 'false')}"]) == protocol


def test_contradicting_fields_give_one_message() -> None:
    with pytest.raises(UsageError) as caught:
        with_overrides(RelaxProtocol(), ["hydrostatic=true", "constant_volume=true"])
    message = "hydrostatic and constant_volume together leave the cell as it is; set relax_cell=false"
    assert str(caught.value) == f"--set {message}"
