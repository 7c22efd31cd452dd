"""`--symmetry` of the property commands."""

import pytest

from esen_flows.cli.commands.properties import _offered, _symmetry
from esen_flows.cli.usage import UsageError
from esen_flows.schemas.properties import Kind
from esen_flows.schemas.property_lookup import entry_of
from esen_flows.schemas.protocol_fields import with_values
from esen_flows.schemas.protocols import ConductivityProtocol


def test_commands_with_one_force_field_offer_it() -> None:
    kinds: tuple[Kind, ...] = ("relax", "static", "md", "phonon", "conductivity", "audit", "eos", "elastic")
    assert [kind for kind in kinds if not _offered(kind)["symmetry"]] == ["eos", "elastic"]


def test_it_sets_the_field_that_all_steps_take_over() -> None:
    (assignment,) = _symmetry("conductivity", "icosahedral+inversion")
    assert assignment == "displacement.force_symmetry=icosahedral+inversion"
    protocol = with_values(ConductivityProtocol(), [tuple(assignment.split("=", 1))])
    steps = entry_of("conductivity").steps(protocol)
    assert [str(step.protocol.force_symmetry) for step in steps[:2]] == ["icosahedral+inversion"] * 2
    assert _symmetry("md", None) == []


def test_wrong_text_is_a_clear_error() -> None:
    with pytest.raises(UsageError, match="--symmetry icosa: 'icosa' is not understood; give parts joined by"):
        _symmetry("relax", "icosa")
    with pytest.raises(UsageError, match="--set symmetry=lock"):
        _symmetry("relax", "lock")
