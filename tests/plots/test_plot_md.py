"""The curves that are drawn are those of the trajectory."""

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from esen_flows.errors import InputError
from esen_flows.forcefield.third_party.emt import emt
from esen_flows.physics.md.dynamics import molecular_dynamics
from esen_flows.plots.md import plot_md
from esen_flows.schemas.md import MDProtocol
from esen_flows.schemas.md_output import MDOutput


def test_energy_temperature_and_vibrations(relax_document, drawn, tmp_path: Path) -> None:
    output = molecular_dynamics(bulk("Cu"), emt(), MDProtocol(n_steps=100, traj_interval=2))
    document = relax_document().model_copy(
        update={"kind": "md", "output": output.model_dump(), "summary": output.summary()}
    )
    assert plot_md(document, tmp_path / "md.png").stat().st_size > 5_000
    energy, temperature, pairs, vibrations = drawn[0].axes
    np.testing.assert_allclose(energy.lines[0].get_xdata(), np.arange(51) * 0.004)
    conserved = 1000 * (output.conserved_energies_ev - output.conserved_energies_ev[0])
    np.testing.assert_allclose(energy.lines[0].get_ydata(), conserved)
    assert temperature.lines[0].get_ydata()[0] == 300.0
    np.testing.assert_allclose(temperature.lines[1].get_ydata(), output.temperatures_kelvin)
    np.testing.assert_allclose(pairs.lines[1].get_ydata(), output.rdf)
    np.testing.assert_allclose(vibrations.lines[0].get_ydata(), output.vdos)
    assert "300 K" in energy.get_title(loc="left")
    with pytest.raises(InputError, match="shows a 'md' document"):
        plot_md(relax_document(), tmp_path / "md.png")
    assert MDOutput.model_validate(document.output).n_steps == 100
