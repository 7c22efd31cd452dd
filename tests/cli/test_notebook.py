"""`import esen_flows as ef`: what the commands do, in a notebook."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from command_line import run

import esen_flows as ef
import esen_flows.makers
from esen_flows.errors import InputError, StructureError
from esen_flows.schemas.protocol_fields import FieldError

SMALL = {"fmax_ev_per_angstrom": 0.01}


@pytest.mark.mongod
def test_a_property_is_that_of_the_command(copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(copper.checkpoint)
    assert run("relax", "Cu.cif", "--model", model, "--set", "fmax_ev_per_angstrom=0.01") == 0
    calls = copper.force_field.force_evaluations
    relaxed = ef.relax(ef.load("Cu.cif"), model, settings=SMALL)
    assert copper.force_field.force_evaluations == calls
    assert relaxed.key in capsys.readouterr().out
    assert "from the database" in str(relaxed)
    shown = relaxed._repr_html_()
    assert "<caption>Cu: relaxation by emt, from the database" in shown
    assert "<td>volume</td><td style='text-align:right'>11.5" in shown
    assert "src='data:image/png;base64,iVBORw0KGgo" in shown
    named = ef.relax(ef.load("Cu.cif"), model, settings=SMALL)
    hostile = replace(named, steps=(named.document.model_copy(update={"model_label": "<script>"}),))
    assert "by &lt;script&gt;," in hostile._repr_html_()
    assert relaxed.structure.get_chemical_formula() == "Cu4"
    assert len(relaxed.output["energies_ev"]) == relaxed.summary["n_steps"] + 1
    names = {path.name for path in relaxed.write("files")}
    assert names == {"relaxed.extxyz", "relaxed.cif", "POSCAR", "relaxation.png"}
    assert ef.load("files/relaxed.cif").cell.lengths() == pytest.approx(relaxed.structure.cell.lengths(), abs=1e-5)
    assert list(ef.table("relax", formula="Cu")["key"]) == [relaxed.key]
    static = ef.compute("static", relaxed.structure, model)
    assert static.summary["energy_per_atom_ev"] == pytest.approx(relaxed.summary["energy_per_atom_ev"], abs=1e-9)

    from pymatgen.io.ase import AseAtomsAdaptor

    as_pymatgen = AseAtomsAdaptor.get_structure(ef.load("Cu.cif"))
    assert ef.relax(as_pymatgen, model, settings=SMALL).key == relaxed.key


def test_what_cannot_be_computed_is_one_clear_error(folder: Path) -> None:
    with pytest.raises(StructureError, match="a pymatgen Structure or the path of a structure file, got int"):
        ef.kappa(3)  # type: ignore[arg-type]
    with pytest.raises(FieldError, match="mesch: no such field; did you mean mesh"):
        ef.kappa(bulk("Si"), settings={"mesch": (3, 3, 3)})
    with pytest.raises(InputError, match=r"nothing\.cif"):
        ef.load("nothing.cif")
    with pytest.raises(AttributeError, match="public names: __version__, compute, kappa, load"):
        ef.colour  # noqa: B018


def test_the_import_is_light() -> None:
    code = (
        "import sys, esen_flows, esen_flows.makers; "
        "print([name for name in ('torch', 'ase', 'pymongo', 'jobflow', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", esen_flows.makers.__all__)
def test_makers_are_importable_from_their_package(name: str) -> None:
    assert getattr(esen_flows.makers, name).__name__ == name
    assert name in dir(esen_flows.makers)
