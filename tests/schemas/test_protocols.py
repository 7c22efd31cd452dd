"""Protocols: closed values whose hashes outlive new fields."""

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from esen_flows.schemas import born_charges, protocols
from esen_flows.schemas.audit import AuditProtocol
from esen_flows.schemas.born_charges import BornCharges
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.md import MDProtocol
from esen_flows.schemas.nve import NveProtocol
from esen_flows.schemas.property_lookup import named_protocol
from esen_flows.schemas.protocol_fields import FieldError, with_values
from esen_flows.schemas.protocols import (
    ConductivityProtocol,
    DisplacementProtocol,
    HarmonicProtocol,
    NumericSettings,
    PhononProtocol,
    RelaxProtocol,
    StaticProtocol,
    TransportProtocol,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden_keys.json").read_text())["protocols"]
IDENTITY = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
SALT: dict[str, Any] = {
    "numbers": [11, 17],
    "cell_angstrom": [[0.0, 2.8, 2.8], [2.8, 0.0, 2.8], [2.8, 2.8, 0.0]],
    "fractions": [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]],
    "charges_e": [[[1.1 * x for x in row] for row in IDENTITY], [[-1.1 * x for x in row] for row in IDENTITY]],
    "dielectric": [[2.4 * x for x in row] for row in IDENTITY],
}
BORN = BornCharges(**SALT)
AS_GIVEN = [("displacement.setting", "as_given")]
PROTOCOLS: dict[str, Frozen] = {
    "numeric default": NumericSettings(),
    "numeric float32": NumericSettings(dtype="float32"),
    "relax default": RelaxProtocol(),
    "relax symmetric": RelaxProtocol(symmetry="fix", fmax_ev_per_angstrom=1e-4),
    "static default": StaticProtocol(),
    "displacement default": DisplacementProtocol(),
    "displacement third order 2x2x2": DisplacementProtocol(order=3, fc2_supercell=(4, 4, 4), fc3_supercell=(2, 2, 2)),
    "phonon default": PhononProtocol(),
    "harmonic default": HarmonicProtocol.of(PhononProtocol()),
    "conductivity default": ConductivityProtocol(),
    "conductivity without tilts": ConductivityProtocol(  # the default until tilts were relaxed
        relax=PhononProtocol().relax.model_copy(update={"cell_mask": (True, True, True, False, False, False)})
    ),
    "transport default": TransportProtocol.of(ConductivityProtocol()),
    "born rocksalt": BORN,
    "phonon as given": with_values(PhononProtocol(), AS_GIVEN),  # the default until there was a canonical setting
    "conductivity as given": with_values(ConductivityProtocol(), AS_GIVEN),
    "phonondb-v1": named_protocol("conductivity", "phonondb-v1", {}),
    "phonondb-v1-two-stage": named_protocol("conductivity", "phonondb-v1-two-stage", {}),
    "mdr": named_protocol("phonon", "mdr", {}),
}


class First(Frozen):
    """As first released."""

    mesh: int = 11
    relax: RelaxProtocol = RelaxProtocol()


def grown(added: Any, default: Any, *, named: bool = True) -> Frozen:
    """The same class after it has got a field; `added` None leaves it at its default."""

    class Grown(First):
        added_later: ClassVar[frozenset[str]] = frozenset({"smearing"}) if named else frozenset()
        smearing: float | None = default

    Grown.__name__ = "First"  # the next release of the same class
    return Grown() if added is None else Grown(smearing=added)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_golden_hashes(name: str) -> None:
    """A changed hash loses every stored result: name new fields in `added_later` instead of changing this file."""
    assert PROTOCOLS[name].hash() == GOLDEN[name]


def descendants(cls: type[Frozen]) -> set[type[Frozen]]:
    return {cls}.union(*map(descendants, cls.__subclasses__()))


def test_every_protocol_has_a_golden_hash() -> None:
    """All classes that enter a key are guarded, those written after this test too."""
    ours = {cls for cls in descendants(Frozen) if cls.__module__ in (protocols.__name__, born_charges.__name__)}
    assert {type(protocol) for protocol in PROTOCOLS.values()} == ours
    assert set(PROTOCOLS) == set(GOLDEN)


@pytest.mark.parametrize("default", [None, 0.1])
def test_a_field_added_later_changes_no_hash_at_its_default(default: float | None) -> None:
    assert grown(None, default).hash() == First().hash()
    assert grown(0.2, default).hash() != First().hash()


def test_a_field_that_is_not_named_as_added_changes_the_hash() -> None:
    assert grown(None, 0.1, named=False).hash() != First().hash()


def test_autodiff_is_another_key() -> None:
    exact = DisplacementProtocol(force_constants="autodiff")
    assert DisplacementProtocol(force_constants="finite_displacement").hash() == GOLDEN["displacement default"]
    assert exact.hash() != GOLDEN["displacement default"]
    assert PhononProtocol(displacement=exact).hash() != GOLDEN["phonon default"]


def test_nested_values_and_types_count() -> None:
    assert First(relax=RelaxProtocol(max_steps=501)).hash() != First().hash()
    assert HarmonicProtocol.of(PhononProtocol()).hash() != TransportProtocol.of(ConductivityProtocol()).hash()


def test_hash_survives_a_round_trip_through_json() -> None:
    for protocol in PROTOCOLS.values():
        assert type(protocol).model_validate_json(protocol.model_dump_json()).hash() == protocol.hash()


def test_protocols_are_closed_and_frozen() -> None:
    with pytest.raises(ValidationError, match="fmax"):
        RelaxProtocol(fmax=0.01)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="frozen"):
        RelaxProtocol().max_steps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("protocol", "fields", "needed"),
    [
        (DisplacementProtocol, {"fc_frames": 4}, {"fc_average": "rotations"}),
        (DisplacementProtocol, {"fc_average": "equivalents", "fc_seed": 1}, {"fc_average": "rotations"}),
        (RelaxProtocol, {"exploration": {"max_depth": 2}}, {"symmetry": "explore"}),
        (RelaxProtocol, {"symmetry": "lock", "exploration": {"max_depth": 2}}, {"symmetry": "explore"}),
    ],
)
def test_a_field_without_an_effect_is_refused(protocol: type[Frozen], fields: dict[str, Any], needed: dict) -> None:
    with pytest.raises(ValidationError, match=r"chang.* nothing with .*; set "):
        protocol(**fields)  # it would give an equal result another key
    assert protocol(**(fields | needed)).hash() != protocol(**needed).hash()


def test_a_supercell_without_volume_is_refused() -> None:
    for matrix in (((1, 0, 0), (1, 0, 0), (0, 0, 1)), ((0, 1, 0), (1, 0, 0), (0, 0, 1))):
        with pytest.raises(ValueError, match="positive determinant"):
            DisplacementProtocol(fc2_supercell=matrix)


def test_three_integers_are_a_diagonal_supercell() -> None:
    assert DisplacementProtocol(fc2_supercell=(2, 3, 4)).fc2_supercell == ((2, 0, 0), (0, 3, 0), (0, 0, 4))  # type: ignore[arg-type]


@pytest.mark.parametrize("temperatures", [(), (300.0, 100.0), (300.0, 300.0)])
def test_temperatures_ascend(temperatures: tuple[float, ...]) -> None:
    for protocol in (ConductivityProtocol, PhononProtocol):
        with pytest.raises(ValidationError, match="ascending"):
            protocol(temperatures_kelvin=temperatures)


def test_a_conductivity_is_of_third_order() -> None:
    with pytest.raises(ValidationError, match=r"displacement\.order: .* so it is 3"):
        ConductivityProtocol(displacement=DisplacementProtocol())


def test_temperatures_are_not_below_zero() -> None:
    # phonopy leaves these out without a word: what follows would stand at another temperature than its own.
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        PhononProtocol(temperatures_kelvin=(-600.0, 300.0, 600.0))


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_numbers_are_finite(number: float) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        RelaxProtocol(fmax_ev_per_angstrom=number)
    with pytest.raises(ValidationError, match="finite number"):
        PhononProtocol(temperatures_kelvin=(0.0, number))


def test_charges_are_part_of_the_keys_and_survive_json() -> None:
    for protocol, derived in (
        (PhononProtocol(born=BORN), HarmonicProtocol.of(PhononProtocol(born=BORN))),
        (ConductivityProtocol(born=BORN), TransportProtocol.of(ConductivityProtocol(born=BORN))),
    ):
        assert derived.born == BORN
        for one in (protocol, derived):
            again = type(one).model_validate_json(one.model_dump_json())
            assert again.hash() == one.hash() != one.model_copy(update={"born": None}).hash()
    noisy = {**SALT, "dielectric": [[2.4 + 1e-12, -0.0, 1e-13], [0.0, 2.4, 0.0], [0.0, 0.0, 2.4]]}
    assert BornCharges(**noisy).hash() == BORN.hash()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"charges_e": SALT["charges_e"][:1]}, "one entry per atom of the primitive cell.*'charges_e': 1"),
        ({"charges_e": [[1.1, 1.1, 1.1], [-1.1, -1.1, -1.1]]}, "charges_e"),
        ({"dielectric": [2.4, 2.4, 2.4]}, "dielectric"),
        ({"dielectric": [[2.4, 0.3, 0.0], [0.0, 2.4, 0.0], [0.0, 0.0, 2.4]]}, "must be symmetric"),
        ({"dielectric": [[-2.4 * x for x in row] for row in IDENTITY]}, "positive eigenvalues"),
        ({"dielectric": [[float("nan")] * 3] * 3}, "finite"),
        ({"cell_angstrom": [*SALT["cell_angstrom"][:2], [0.0, 0.0, 0.0]]}, "right-handed and not flat"),
        ({"factor_ev_angstrom": 0.0}, "greater than 0"),
    ],
)
def test_charges_of_a_wrong_shape_or_sign_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        BornCharges(**{**SALT, **change})


@pytest.mark.parametrize(
    ("protocol", "field", "value", "words"),
    [
        (PhononProtocol, "mesh", (10**6,) * 3, "too large; at most 10000000"),
        (ConductivityProtocol, "mesh", (2**62, 1, 1), "too large; at most 10000000"),
        (PhononProtocol, "band_points", 2**64, "less than or equal to 100000"),
        (PhononProtocol, "temperatures_kelvin", (300.0, 1e300), "up to 100000 K"),
        (ConductivityProtocol, "temperatures_kelvin", tuple(range(1, 20_000)), "at most 10000 temperatures"),
        (RelaxProtocol, "max_steps", 2**64, "less than or equal to"),
        (RelaxProtocol, "symprec_angstrom", 1e300, "less than or equal to 1"),
        (DisplacementProtocol, "fc2_supercell", (10**6,) * 3, "too large; at most 20000"),
        (DisplacementProtocol, "fc3_supercell", ((1, 10**6, 0), (0, 1, 0), (0, 0, 1)), "too large; at most 20000"),
        (DisplacementProtocol, "fc2_min_length_angstrom", 1e300, "less than or equal to 1000"),
        (DisplacementProtocol, "fc3_pair_cutoff_angstrom", 1e300, "less than or equal to 1000"),
    ],
)
def test_work_is_bounded_before_it_begins(protocol: type, field: str, value: object, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        protocol(**{field: value})


def test_a_field_of_a_part_that_is_left_out_adds_the_part() -> None:
    changed = with_values(AuditProtocol(), [("nve.systems", "H2O,CH4"), ("nve.half_step_ps", "0.5")])
    assert changed == AuditProtocol(nve=NveProtocol(systems=("H2O", "CH4"), half_step_ps=0.5))
    assert with_values(AuditProtocol(), [("measurements.count", 3)]).nve is None
    symmetry = with_values(MDProtocol(), [("force_symmetry.average", "octahedral")]).force_symmetry
    assert str(symmetry) == "octahedral"  # a part without valid defaults
    with pytest.raises(FieldError, match=r"nve\.stride: no such field"):
        with_values(AuditProtocol(), [("nve.stride", 1)])
