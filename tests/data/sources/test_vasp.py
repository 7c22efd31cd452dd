"""vasprun.xml and OUTCAR: steps of a file that was cut, and electronic loops that did not converge."""

import gzip

import numpy as np
import pytest

from esen_flows.data.importing import import_sources
from esen_flows.data.screening import BadRecord
from esen_flows.data.sources.options import SourceOptions
from esen_flows.data.sources.read import read_source
from esen_flows.data.sources.vasp import unconverged_steps

CELL = "<v> 4.0 0.0 0.0 </v><v> 0.0 4.0 0.0 </v><v> 0.0 0.0 4.0 </v>"
SITES = "<v> 0.0 0.0 0.0 </v><v> 0.5 0.5 0.5 </v>"
STRUCTURE = f'<crystal><varray name="basis">{CELL}</varray></crystal><varray name="positions">{SITES}</varray>'


def energy(value: float) -> str:
    return f'<energy><i name="e_fr_energy">{value}</i><i name="e_0_energy">{value}</i></energy>'


def step(value: float, electronic: int) -> str:
    """An ionic step as VASP writes it."""
    forces = "<v> 0.1 0.0 0.0 </v><v> -0.1 0.0 0.0 </v>"
    stress = "<v> 10.0 1.0 2.0 </v><v> 1.0 20.0 3.0 </v><v> 2.0 3.0 30.0 </v>"
    return (
        "<calculation>" + f"<scstep>{energy(value)}</scstep>" * electronic + f"<structure>{STRUCTURE}</structure>"
        f'<varray name="forces">{forces}</varray><varray name="stress">{stress}</varray>{energy(value)}'
        "<eigenvalues><array><set></set></array></eigenvalues></calculation>\n"
    )


def vasprun(*steps: str, most: int = 9) -> str:
    atoms = "<rc><c>Cs</c><c>1</c></rc><rc><c>Cl</c><c>2</c></rc>"
    return (
        '<?xml version="1.0"?>\n<modeling><kpoints><varray name="kpointlist"><v> 0 0 0 </v></varray>'
        '<varray name="weights"><v> 1.0 </v></varray></kpoints>'
        f'<parameters><i type="int" name="NELM"> {most}</i></parameters>'
        f'<atominfo><array name="atoms"><set>{atoms}</set></array></atominfo>'
        f'<structure name="initialpos">{STRUCTURE}</structure>\n{"".join(steps)}</modeling>\n'
    )


def test_a_whole_file(tmp_path):
    (tmp_path / "vasprun.xml").write_text(vasprun(step(-6.0, 5), step(-6.5, 4)))
    first, second = read_source(tmp_path)
    assert (first.energy, second.energy) == (-6.0, -6.5)
    assert first.atoms.get_chemical_formula() == "ClCs"
    # kBar, positive under compression.
    np.testing.assert_allclose(first.stress[1], [-1 / 1602.1766, -20 / 1602.1766, -3 / 1602.1766], rtol=1e-6)


@pytest.mark.parametrize(
    ("cut", "energies"),
    [
        ("</calculation>\n</modeling>", [-6.0, -6.5]),  # in the eigenvalues: all labels are there
        ("<eigenvalues>", [-6.0, -6.5]),
        ("</varray><energy>", [-6.0]),  # before the energy of the second step
        ("<scstep>", [-6.0]),
        ("<calculation>", [-6.0]),
    ],
)
def test_finished_steps_of_a_cut_file_are_kept(tmp_path, cut, energies):
    text = vasprun(step(-6.0, 5), step(-6.5, 4))
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "vasprun.xml").write_text(text[: text.rindex(cut) + 3])
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "vasprun.xml").write_text(vasprun(step(-7.0, 2)))
    *records, last = read_source(tmp_path)
    bad = BadRecord(
        str(tmp_path / "1" / "vasprun.xml"),
        "the file ends in the middle or is damaged",
        f"{len(energies)} finished ionic steps are kept; let VASP finish, or remove the file",
    )
    assert bad == records.pop()
    assert [record.energy for record in [*records, last]] == [*energies, -7.0]


@pytest.mark.parametrize("cut", ["<atominfo>", "<set>", "</modeling>"])
def test_files_without_a_finished_step_are_bad(tmp_path, cut):
    text = vasprun(step(-6.0, 5)[:400])
    (tmp_path / "vasprun.xml").write_text(text[: text.rindex(cut)])
    (bad,) = read_source(tmp_path)
    assert bad.reason == "the file ends in the middle or is damaged"
    assert bad.found.startswith("0 finished ionic steps")


def test_a_compressed_file_that_was_cut(tmp_path):
    random = np.random.default_rng(0)
    text = vasprun(*(step(round(value, 6), 5) for value in random.normal(size=200)))
    whole = gzip.compress(text.encode())
    (tmp_path / "vasprun.xml.gz").write_bytes(whole)
    assert sum(1 for _ in read_source(tmp_path)) == 200
    (tmp_path / "vasprun.xml.gz").write_bytes(whole[: len(whole) // 2])
    *kept, bad = read_source(tmp_path)
    assert bad.reason == "the file ends in the middle or is damaged"
    assert 50 < len(kept) < 150


def test_unconverged_steps_are_listed_or_counted(tmp_path):
    (tmp_path / "vasprun.xml").write_text(vasprun(step(-6.0, 9), step(-6.5, 8), step(-6.6, 9)))
    one, two, three = read_source(tmp_path)
    assert [one.reason, three.reason] == ["the electronic loop did not converge"] * 2
    assert one.where == "frame 0 of vasprun.xml"
    assert two.energy == -6.5
    options = SourceOptions(keep_unconverged=True)
    dataset = import_sources([tmp_path], tmp_path / "d", options=options, check_strain=False)
    assert len(dataset) == 3
    assert '"remarks": {\n  "the electronic loop did not converge": 2\n }' in (tmp_path / "d/index.json").read_text()


OUTCAR = """   NELM   =     {most};   NELMIN=  2; NELMDL= -5     # of ELM steps
--------------------- Iteration      1(   1)  ---------------------------------------
--------------------- Iteration      1(  {first})  ---------------------------------------
--------------------- Iteration      2(   {second})  ---------------------------------------
"""


def test_unconverged_steps_of_outcar(tmp_path):
    path = tmp_path / "OUTCAR"
    path.write_text(OUTCAR.format(most=60, first=60, second=12))
    assert unconverged_steps(path) == {0}
    path.write_text(OUTCAR.format(most=100, first=60, second=12))
    assert unconverged_steps(path) == set()
    path.with_suffix(".gz").write_bytes(gzip.compress(OUTCAR.format(most=12, first=11, second=12).encode()))
    assert unconverged_steps(path.with_suffix(".gz")) == {1}
