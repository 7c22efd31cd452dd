"""Interrupted forces of displaced supercells and interrupted conductivities are resumed."""

from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from running import run

from esen_flows.makers.conductivity import ConductivityMaker
from esen_flows.makers.step_inputs import parent_output
from esen_flows.physics.lattice import anharmonic
from esen_flows.physics.lattice.conductivity import conductivity
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.progress import listening
from esen_flows.schemas.lattice_documents import ConductivityOutput, ForcesOutput
from esen_flows.schemas.protocols import ConductivityProtocol, DisplacementProtocol, RelaxProtocol, TransportProtocol
from esen_flows.stopping import Stopped
from esen_flows.store.partial_results import COLLECTION

pytestmark = pytest.mark.mongod
PROTOCOL = ConductivityProtocol(
    relax=RelaxProtocol(fmax_ev_per_angstrom=1e-2, symmetry="fix"),
    displacement=DisplacementProtocol(order=3, fc2_supercell=(2, 2, 2), fc3_supercell=(2, 2, 2)),
    mesh=(5, 5, 5),
    temperatures_kelvin=(300.0,),
)


class Runs:
    """Computes a conductivity of copper, and can be stopped."""

    def __init__(self, copper: Any) -> None:
        self._copper = copper
        self._flow = ConductivityMaker(force_field_name=str(copper.checkpoint), protocol=PROTOCOL).make(bulk("Cu"))
        self.seen: list[int] = []  # parts done of the watched step

    def __call__(self, kind: str, stop_at: float) -> dict[str, Any]:
        """The last output; stopped as soon as this many parts of the step are done."""
        self.seen.clear()

        def listen(reported: str, done: int, total: int | None, words: str) -> None:
            if reported == kind and done:
                self.seen.append(done)
                assert words.startswith(f"{done} of {total}")
                if done >= stop_at:
                    raise Stopped

        with listening(listen):
            output: dict[str, Any] = run(self._flow, self._copper)
        return output


def test_interrupted_steps_are_resumed(copper: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anharmonic, "PART_SECONDS", 0.0)  # point by point
    monkeypatch.setattr(displaced_forces, "__kwdefaults__", {**displaced_forces.__kwdefaults__, "atoms_per_batch": 1})
    compute, unfinished = Runs(copper), copper.store.database[COLLECTION]
    with pytest.raises(Stopped):
        compute("forces", stop_at=3)
    assert unfinished.count_documents({}) == 1
    calls = copper.force_field.force_evaluations
    with pytest.raises(Stopped):
        compute("forces", stop_at=5)
    assert compute.seen == [3, 4, 5]
    assert copper.force_field.force_evaluations == calls + 2
    with pytest.raises(Stopped):
        compute("conductivity", stop_at=4)
    calls = copper.force_field.force_evaluations
    (row,) = unfinished.find({})
    assert copper.store.database["claims"].count_documents({}) == 0
    output = compute("conductivity", stop_at=np.inf)
    assert row["_id"] == output["key"]
    assert compute.seen[0] == 5
    assert copper.force_field.force_evaluations == calls
    assert unfinished.count_documents({}) == 0
    document = copper.store.get(output["key"])
    whole = ConductivityOutput.model_validate(document.output)
    forces = parent_output(copper.store, document.parent_key, ForcesOutput)
    in_one_go = conductivity(forces, TransportProtocol.of(PROTOCOL))
    assert np.array_equal(whole.linewidths_thz, in_one_go.linewidths_thz)
    for method, result in in_one_go.methods.items():
        assert np.array_equal(whole.methods[method].kappa_w_per_m_k, result.kappa_w_per_m_k)
