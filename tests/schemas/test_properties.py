"""The table of properties: complete, consistent, and the only place that knows the kinds."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from ase.build import bulk
from ase.io import write
from pydantic import ValidationError
from typer.testing import CliRunner

from esen_flows.campaigns.spec import read_spec
from esen_flows.cli.app import app
from esen_flows.cli.property_request import build_request
from esen_flows.errors import InputError
from esen_flows.makers import steps
from esen_flows.makers.chunk_batch import MANY
from esen_flows.makers.chunks import stages_of
from esen_flows.makers.core import StructureMaker
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.properties import OFFERED, PROPERTIES, Kind
from esen_flows.schemas.property_lookup import COMMANDS, entry_of, kind_named, kind_of, named_protocol
from esen_flows.schemas.protocols import NumericSettings
from esen_flows.schemas.requests import ResultRequest, property_requests
from esen_flows.store.queries.fields import fields_of
from esen_flows.store.queries.selection import select

SOURCES = Path(steps.__file__).parents[1]


class Unknown(Frozen):
    """The protocol of a property that is not in the table."""


def request_of_unknown_kind() -> ResultRequest:
    fields = {"parent_key": "a", "structure_key": "a", "model_key": "b", "numerics_revision": 1}
    return ResultRequest.model_validate({"kind": "viscosity", "protocol": {}, "numeric": {}, **fields})


def campaign_of_unknown_kind() -> CampaignSpec:
    fields = {"name": "one", "structures": {"file": "Si.cif"}, "models": "emt"}
    return CampaignSpec.model_validate({"property": "viscosity", **fields})


def command_of_unknown_kind() -> None:
    file = Path("Si.cif")
    build_request("viscosity", file, "emt", [], None, "cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "ask",
    [
        lambda: property_requests("a", "b", Unknown(), NumericSettings()),
        request_of_unknown_kind,
        lambda: steps.step_function("viscosity"),
        lambda: stages_of("viscosity"),
        lambda: StructureMaker(force_field_name="emt", protocol=Unknown()).make(bulk("Cu")),
        lambda: kind_named("viscosity"),
        lambda: named_protocol("viscosity", None, {}),
        command_of_unknown_kind,
        campaign_of_unknown_kind,
        lambda: select("viscosity"),  # type: ignore[arg-type]
        lambda: fields_of("viscosity"),
    ],
    ids=[
        "requests", "a stored request", "steps of chunks and jobs", "stages of chunks", "flows of commands",
        "converge and query", "protocols by name", "questions of commands", "specifications of campaigns", "queries",
        "query columns",
    ],
)  # fmt: skip
def test_an_unknown_kind_is_refused(ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("Si.cif", bulk("Cu"))
    with pytest.raises((InputError, ValidationError), match=r"viscosity|Unknown") as raised:
        ask()
    assert "relax" in str(raised.value) or "'phonon'" in str(raised.value)  # the message names those that there are


@pytest.mark.parametrize(
    "arguments", [["query", "viscosity"], ["converge", "viscosity", "Si.cif"], ["viscosity", "Si.cif"]]
)
def test_an_unknown_kind_is_wrong_usage(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_a_specification_with_an_unknown_kind_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("name: one\nproperty: viscosity\nstructures: {file: a.cif}\nmodels: emt\n")
    with pytest.raises(InputError, match=r"spec.yaml:2: property: choose from relax, .*got 'viscosity'"):
        read_spec(tmp_path)


def test_the_kinds_are_those_of_the_table() -> None:
    assert tuple(PROPERTIES) == get_args(Kind)
    assert get_args(ResultDocument.model_fields["kind"].annotation) == get_args(Kind)
    assert {PROPERTIES[kind].command: kind for kind in OFFERED} == COMMANDS


@pytest.mark.parametrize("kind", OFFERED)
def test_an_offered_property_is_complete(kind: Kind) -> None:
    entry = entry_of(kind)
    protocol = entry.protocol()
    assert kind_of(protocol) == kind
    assert named_protocol(kind, None, {}) == protocol
    chain = entry.steps(protocol)
    assert chain[-1].kind == kind
    assert type(chain[-1].protocol) is entry.step_protocol
    for number, step in enumerate(chain):
        assert type(step.protocol) is entry_of(step.kind).step_protocol
        assert all(parent < number for _, parent in step.parents)
        steps.step_function(step.kind)
    assert entry.field(entry.principal(protocol)).type == "number"
    assert set(entry.reproduction) == {"float64", "float32"}
    assert len(stages_of(kind)) == (1 if len(chain) == 1 else 2)
    assert len(chain) > 1 or kind in MANY or entry.subject == "model"
    assert entry.help.endswith(".")


@pytest.mark.parametrize("kind", PROPERTIES)
def test_summaries_name_their_values_once(kind: Kind) -> None:
    names = [value.name for value in entry_of(kind).summary]
    assert len(names) == len(set(names))
    assert any(value.column for value in entry_of(kind).summary)


def test_requests_of_a_property_are_chained_by_their_parents() -> None:
    for kind in OFFERED:
        requests = property_requests("a" * 64, "b" * 64, entry_of(kind).protocol(), NumericSettings())
        known = {request.key for request in requests}
        assert requests[0].starts_from_input
        for request in requests[1:]:
            assert set(request.parents.values() or [request.parent_key]) <= known
        assert [ResultRequest.model_validate(one.model_dump(mode="json")).key for one in requests] == [
            one.key for one in requests
        ]


def test_help_texts_name_no_kind_that_does_not_exist() -> None:
    """Kinds of plans for later stood in choices and help texts, where they looked as if they could be computed."""
    words = {"stability", "md", "elastic", "eos", "qha", "gruneisen", "neb"} - set(PROPERTIES)
    for name in ("cli/commands/results.py", "cli/commands/upkeep.py", "store/queries/fields.py"):
        text = (SOURCES / name).read_text()
        assert not [word for word in words if re.search(rf'"{word}"', text)], name
