"""Requests and their keys, before anything is computed."""

import json
import subprocess
import sys

import pytest

from esen_flows.schemas import requests as module
from esen_flows.schemas.keys import result_key
from esen_flows.schemas.protocols import (
    ConductivityProtocol,
    DisplacementProtocol,
    NumericSettings,
    PhononProtocol,
    RelaxProtocol,
)
from esen_flows.schemas.requests import ResultRequest, property_requests

STRUCTURE, MODEL = "aa" * 32, "bb" * 32
VERSIONS = {"phonopy": "4.8", "phono3py": "4.8", "lattice_backend": "Rust"}


@pytest.fixture(autouse=True)
def _fixed_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "lattice_versions", lambda transport: dict(VERSIONS))


def conductivity(**changes: object) -> tuple[ResultRequest, ...]:
    return property_requests(STRUCTURE, MODEL, ConductivityProtocol(**changes), NumericSettings())


def test_golden_chain() -> None:
    # Recorded at the first release: a change here orphans every stored result.
    golden = {
        "relax": "dfba05b9fd2b13a364f7b5b9a607f783d601e3ad034a15afb4efa901c9f46eb3",
        "forces": "ea4fe6dc92fc0e03a3974ea252fbf61d81ecb3e9fd106af8a409d92e7a32bf62",
        "conductivity": "5acadb5ee1667aa829434c5826394a2954c3267f7af920cec9bab5ad84a51a2d",
    }
    without_tilts = PhononProtocol().relax.model_copy(update={"cell_mask": (True, True, True, False, False, False)})
    canonical = ConductivityProtocol().displacement
    as_given = canonical.model_copy(update={"setting": "as_given"})
    found = conductivity(relax=without_tilts, displacement=as_given)
    assert {request.kind: request.key for request in found} == golden
    relax, *others = conductivity(relax=without_tilts, displacement=canonical)
    assert relax.key == golden["relax"]
    assert not {request.key for request in others} & set(golden.values())


def test_phonons_and_conductivities_share_their_relaxation() -> None:
    phonon = property_requests(STRUCTURE, MODEL, PhononProtocol(), NumericSettings())
    assert phonon[0].key == conductivity()[0].key


def test_each_step_is_keyed_by_its_parent() -> None:
    relax, forces, transport = conductivity()
    assert relax.parent_key == STRUCTURE
    assert (forces.parent_key, transport.parent_key) == (relax.key, forces.key)
    assert {request.structure_key for request in (relax, forces, transport)} == {STRUCTURE}
    assert relax.key == result_key("relax", relax.protocol.hash(), STRUCTURE, MODEL, NumericSettings().key_fields(), 1)


def test_another_mesh_or_temperature_shares_the_forces() -> None:
    reference = conductivity()
    for changed in (
        conductivity(mesh=(9, 9, 9)),
        conductivity(temperatures_kelvin=(300.0,)),
        conductivity(isotope_scattering=True),
    ):
        assert [request.key for request in changed[:2]] == [request.key for request in reference[:2]]
        assert changed[2].key != reference[2].key


def test_another_displacement_shares_the_relaxation() -> None:
    reference = conductivity()
    changed = conductivity(displacement=DisplacementProtocol(order=3, displacement_angstrom=0.01))
    assert changed[0].key == reference[0].key
    assert changed[1].key != reference[1].key
    assert changed[2].key != reference[2].key


def test_all_force_calls_of_a_flow_see_one_energy_surface() -> None:
    relax, forces, _ = conductivity(displacement=DisplacementProtocol(order=3, parity="as_is"))
    assert relax.protocol.parity == forces.protocol.parity == "as_is"
    relax, forces, _ = conductivity(relax=RelaxProtocol(parity="as_is"))
    assert relax.protocol.parity == forces.protocol.parity == "average"


def test_model_and_dtype_change_every_step() -> None:
    reference = conductivity()
    other_model = property_requests(STRUCTURE, "cc" * 32, ConductivityProtocol(), NumericSettings())
    single = property_requests(STRUCTURE, MODEL, ConductivityProtocol(), NumericSettings(dtype="float32"))
    for other in (other_model, single):
        assert not {r.key for r in reference} & {r.key for r in other}


def test_a_new_phono3py_makes_no_force_call(monkeypatch: pytest.MonkeyPatch) -> None:
    before = conductivity()
    phonon_before = property_requests(STRUCTURE, MODEL, PhononProtocol(), NumericSettings())
    monkeypatch.setattr(module, "lattice_versions", lambda transport: {**VERSIONS, "phono3py": "4.9"})
    after = conductivity()
    assert [r.key for r in before[:2]] == [r.key for r in after[:2]]
    assert before[2].key != after[2].key
    assert after[2].numeric.phono3py == "4.9"
    # Harmonic phonons never meet phono3py.
    assert property_requests(STRUCTURE, MODEL, PhononProtocol(), NumericSettings())[2].key == phonon_before[2].key


@pytest.mark.parametrize("kind", ["relax", "phonon", "conductivity"])
def test_requests_survive_json(kind: str) -> None:
    chains = {
        "relax": property_requests(STRUCTURE, MODEL, RelaxProtocol(symmetry="fix"), NumericSettings()),
        "phonon": property_requests(STRUCTURE, MODEL, PhononProtocol(), NumericSettings()),
        "conductivity": conductivity(
            displacement=DisplacementProtocol(order=3, fc2_supercell=(3, 3, 3), fc3_supercell=(2, 2, 2))
        ),
    }
    for request in chains[kind]:
        restored = ResultRequest.model_validate(json.loads(json.dumps(request.model_dump(mode="json"))))
        assert restored == request
        assert type(restored.protocol) is type(request.protocol)
        assert restored.key == request.key


def test_a_protocol_of_another_kind_is_refused() -> None:
    data = conductivity()[2].model_dump(mode="json")
    with pytest.raises(ValueError, match="methods"):
        ResultRequest.model_validate({**data, "kind": "phonon"})


def test_keys_are_the_same_in_another_process_and_need_neither_torch_nor_phonopy() -> None:
    code = (
        "import sys\n"
        "from esen_flows.schemas.protocols import *\n"
        "from esen_flows.schemas.requests import *\n"
        f"print(property_requests({STRUCTURE!r}, {MODEL!r}, RelaxProtocol(), NumericSettings())[0].key)\n"
        "print([m for m in ('torch', 'phonopy', 'phono3py', 'atomate2', 'jobflow', 'pymongo') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert found[0] == property_requests(STRUCTURE, MODEL, RelaxProtocol(), NumericSettings())[0].key
    assert found[1] == "[]"
