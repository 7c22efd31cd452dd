"""Bad records: found, named, counted, listed."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms

from esen_flows.data.labelled import LabelledStructure
from esen_flows.data.screening import BadRecord, Limits, Rejected, fault, screened
from esen_flows.errors import InputError

CRYSTAL = Atoms("NaCl", positions=[[0, 0, 0], [2.8, 0, 0]], cell=[5.6, 5.6, 5.6], pbc=True)
GOOD = LabelledStructure(CRYSTAL, -1.0, np.zeros((2, 3)), np.zeros((3, 3)), material="mp-1")


def with_atoms(**changes) -> LabelledStructure:
    atoms = CRYSTAL.copy()
    for name, value in changes.items():
        if name == "info":
            atoms.info.update(value)
        else:
            setattr(atoms, name, value)
    return replace(GOOD, atoms=atoms)


@pytest.mark.parametrize(
    ("item", "reason", "found"),
    [
        (replace(GOOD, atoms=Atoms()), "no atoms", ""),
        (with_atoms(numbers=[11, 0]), "unknown element", "atomic numbers [0]"),
        (with_atoms(positions=[[0, 0, np.nan], [1, 1, 1]]), "positions or cell are NaN or infinite", ""),
        (with_atoms(cell=[[1, 0, 0], [2, 0, 0], [0, 0, 1]]), "periodic without a cell", "pbc [True, True, True]"),
        (with_atoms(positions=[[0, 0, 1e300], [1, 1, 1]]), "positions or cell are too large", "beyond 1e+06"),
        (with_atoms(cell=[1e300, 5, 5]), "positions or cell are too large", ""),
        (with_atoms(cell=[0.5, 0.5, 0.5]), "the cell is too small for its atoms", "0.5] Angstrom for 2 atoms"),
        (with_atoms(cell=[0.1, 50, 50], pbc=[True, False, False]), "the cell is too small for its atoms", ""),
        (with_atoms(info={"charge": 10**9}), "charge is too large", ""),
        (replace(GOOD, energy=1e300), "the energy is too large", "1e+300 eV"),
        (replace(GOOD, stress=np.full((3, 3), 1e30)), "the stress is too large", "1e+30"),
        (with_atoms(cell=[5, 5, 0]), "periodic without a cell", "pbc"),
        (with_atoms(info={"charge": 0.5}), "charge is not an integer", "0.5"),
        (with_atoms(info={"spin": "high"}), "spin is not an integer", "'high'"),
        (replace(GOOD, forces=np.zeros((3, 3))), "labels of the wrong shape", "forces (3, 3)"),
        (replace(GOOD, stress=np.zeros(6)), "labels of the wrong shape", "stress (6,)"),
        (replace(GOOD, energy=float("inf")), "the energy is NaN or infinite", "inf"),
        (replace(GOOD, forces=np.full((2, 3), np.nan)), "a force is NaN or infinite", ""),
        (replace(GOOD, forces=np.array([[30.0, 41.0, 0], [0, 0, 0]])), "huge force", "50.8 eV/Angstrom, limit 50"),
        (replace(GOOD, stress=np.diag([1.0, np.nan, 1.0])), "the stress is NaN or infinite", ""),
    ],
)
def test_bad_structures(item, reason, found):
    said, what = fault(item, Limits())
    assert said == reason
    assert found in what


def test_limits_decide_what_is_good():
    assert fault(GOOD, Limits()) is None
    without = replace(GOOD, stress=np.full((3, 3), np.nan))
    assert fault(without, Limits()) is None
    assert fault(without, Limits(require_stress=True)) == ("no stress", "")
    molecule = replace(without, atoms=Atoms("NaCl", positions=CRYSTAL.positions))
    assert fault(molecule, Limits(require_stress=True)) is None
    assert fault(GOOD, Limits(elements=frozenset({11}))) == ("unknown element", "atomic numbers [17]")
    huge = replace(GOOD, forces=np.full((2, 3), 100.0))
    assert fault(huge, Limits(max_force_ev_per_angstrom=200.0)) is None


def test_bad_records_keep_their_place_and_are_counted():
    missing = BadRecord("row 3 of a.db", "no energy")
    nan = replace(GOOD, energy=float("nan"))
    stream = list(screened([GOOD, missing, nan, GOOD], "a.db"))
    assert stream[1] is missing
    assert str(stream[2]) == "record 2 (mp-1) of a.db: the energy is NaN or infinite (nan)"
    rejected = Rejected()
    assert list(rejected.keep(stream)) == [GOOD, GOOD]
    document = rejected.document()
    assert document["records"] == 2
    assert document["counts"] == {"no energy": 1, "the energy is NaN or infinite": 1}
    assert [entry["where"] for entry in document["listed"]] == ["row 3 of a.db", "record 2 (mp-1) of a.db"]
    with pytest.raises(InputError, match=r"row 3 of a\.db: no energy; repair the record, or skip"):
        list(Rejected("fail").keep(stream))
    with pytest.raises(InputError, match=r"no good record, and 1 bad ones; the first: row 3"):
        list(Rejected().keep([missing]))


def test_the_list_is_bounded_and_the_count_is_not():
    rejected = Rejected()
    list(rejected.keep([GOOD, *(BadRecord(str(i), "no energy") for i in range(1500))]))
    assert rejected.counts["no energy"] == 1500
    assert len(rejected.document()["listed"]) == 1000
