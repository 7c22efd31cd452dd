"""Born charges through the Makers: another `born` is another phonon result of the same forces."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from running import run

from esen_flows.errors import InputError
from esen_flows.forcefield.contract import Declaration
from esen_flows.forcefield.third_party.any_ase import AseForceField
from esen_flows.makers.conductivity import ConductivityMaker
from esen_flows.makers.phonon import PhononMaker
from esen_flows.physics.lattice.born import read_born
from esen_flows.schemas.protocols import (
    BornCharges,
    ConductivityProtocol,
    DisplacementProtocol,
    PhononProtocol,
    RelaxProtocol,
)

pytestmark = pytest.mark.mongod

# Ordered CuAu away from EMT's minimum (2.795, 3.581): the charges are read before it is relaxed.
START = Atoms("CuAu", scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], cell=[2.83, 2.83, 3.65], pbc=True)
RELAX = RelaxProtocol(fmax_ev_per_angstrom=1e-2, symmetry="fix")
SMALL = {"fc2_supercell": (2, 2, 2), "fc3_supercell": (2, 2, 2)}
PHONON = PhononProtocol(relax=RELAX, displacement=DisplacementProtocol(**SMALL), mesh=(4, 4, 4), band_points=5)
CONDUCTIVITY = ConductivityProtocol(
    relax=RELAX, displacement=DisplacementProtocol(order=3, **SMALL), mesh=(4, 4, 3), temperatures_kelvin=(300.0,)
)


@pytest.fixture
def alloy(copper: Any, monkeypatch: pytest.MonkeyPatch) -> AseForceField:
    """EMT for copper and gold, in place of the checkpoint of `copper`."""
    declaration = Declaration(
        conservative=True, equivariance="O3", differentiable=False, elements=None, dtype="float64"
    )
    force_field = AseForceField(EMT(), key=copper.force_field.key, label="emt", declaration=declaration)
    monkeypatch.setattr("esen_flows.forcefield.load.load_force_field", lambda *a, **options: force_field)
    return force_field


def born_of(charge: float, folder: Path, protocol: PhononProtocol | ConductivityProtocol) -> BornCharges:
    """Made-up charges of copper and gold, through a BORN file."""
    tensor = f"{charge} 0 0 0 {charge} 0 0 0 {charge}"
    minus = f"{-charge} 0 0 0 {-charge} 0 0 0 {-charge}"
    (folder / "BORN").write_text(f"14.4\n3 0 0 0 3 0 0 0 4\n{tensor}\n{minus}\n")
    return read_born(folder / "BORN", START, protocol)


@pytest.mark.parametrize("kind", ["phonon", "conductivity"])
def test_other_born_charges_give_another_result_without_a_force_call(
    copper: Any, alloy: AseForceField, tmp_path: Path, kind: str
) -> None:
    plain: Any
    if kind == "phonon":
        plain, field = PhononMaker(force_field_name=str(copper.checkpoint), protocol=PHONON), "max_frequency_thz"
    else:
        plain = ConductivityMaker(force_field_name=str(copper.checkpoint), protocol=CONDUCTIVITY)
        field = "kappa_rta_w_per_m_k"
    first = run(plain.make(START), copper)
    calls = alloy.force_evaluations
    values, keys = [first["summary"][field]], {first["key"]}
    for charge in (1.0, 1.5):
        protocol = plain.protocol.model_copy(update={"born": born_of(charge, tmp_path, plain.protocol)})
        output = run(replace(plain, protocol=protocol).make(START), copper)
        stored = copper.store.get(output["key"])
        assert stored.summary["nac"] is True
        assert stored.protocol["born"]["charges_e"][1][2][2] == -charge
        assert stored.parent_key == copper.store.get(first["key"]).parent_key
        values.append(output["summary"][field])
        keys.add(output["key"])
    assert alloy.force_evaluations == calls > 0
    assert "nac" not in first["summary"]
    assert len(keys) == 3
    assert min(abs(one / other - 1) for one, other in pairwise(values)) > 0.003


def test_born_charges_of_another_crystal_are_refused_by_make(copper: Any, tmp_path: Path) -> None:
    protocol = PHONON.model_copy(update={"born": born_of(1.0, tmp_path, PHONON)})
    maker = PhononMaker(force_field_name=str(copper.checkpoint), protocol=protocol)
    with pytest.raises(InputError, match="read its own"):
        maker.make(Atoms("CuPd", scaled_positions=START.get_scaled_positions(), cell=START.cell, pbc=True))
    lying = START.copy()
    lying.rotate(90, "x", rotate_cell=True)
    with pytest.raises(InputError, match="turned or strained"):
        maker.make(lying)
