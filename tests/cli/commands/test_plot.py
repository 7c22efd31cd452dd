"""`esen-flows plot` and `esen-flows export`: stored results in one figure, and as files of other programs."""

from pathlib import Path
from typing import Any

import pytest
from command_line import run

pytestmark = pytest.mark.mongod
SMALL = ("--set", "displacement.fc2_supercell=2,2,2", "--set", "relax.fmax_ev_per_angstrom=0.01")


def keys_of(copper: Any, kind: str) -> list[str]:
    return [row["key"] for row in copper.store.database["results"].find({"kind": kind})]


def test_phonons_in_one_figure(copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for displacement in ("0.01", "0.05"):
        step = ("--set", f"displacement.displacement_angstrom={displacement}", "--set", "mesh=5,5,5")
        assert run("phonon", "Cu.cif", "--model", copper.checkpoint, *SMALL, *step) == 0
    first, second = keys_of(copper, "phonon")
    capsys.readouterr()
    assert run("plot", first, second[:8], "-o", "both") == 0
    assert "wrote    both/phonon.png" in capsys.readouterr().out
    drawn = (folder / "both" / "phonon.svg").read_text()
    assert all(f"displacement {length} Å" in drawn for length in ("0.01", "0.05"))  # of a step before the phonons
    assert run("export", "phonopy", first, "-o", "phonopy") == 0
    written = {path.name for path in (folder / "phonopy").iterdir()}
    assert written == {"phonopy_params.yaml", "FORCE_SETS", "band.yaml", "thermal_properties.yaml"}
    assert run("export", "phono3py", first, "-o", "phonopy") == 1
    assert "phono3py takes one of kind conductivity" in " ".join(capsys.readouterr().err.split())
    (relaxation,) = keys_of(copper, "relax")
    for keys, words in (
        ((first, relaxation), "results of kind phonon, relax; give phonons alone"),
        ((relaxation,), "results of kind relax; give phonons alone, or conductivities alone"),
        ((first, "ffff" * 4), "no result with a key that begins with"),
    ):
        assert run("plot", *keys) == 1
        assert words in " ".join(capsys.readouterr().err.split())


def test_conductivities_in_one_figure(copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for mesh in ("3,3,3", "5,5,5"):
        step = ("--set", "displacement.fc3_supercell=2,2,2", "--set", f"mesh={mesh}")
        assert run("kappa", "Cu.cif", "--model", copper.checkpoint, *SMALL, *step) == 0
    assert run("plot", *keys_of(copper, "conductivity"), "-o", "both") == 0
    made = sorted(path.name for path in (folder / "both").glob("*.png"))
    assert made == ["cumulative_kappa.png", "lifetimes.png", "mean_free_paths.png"]
    assert run("export", "phono3py", keys_of(copper, "conductivity")[0], "-o", "phono3py") == 0
    # Both orders have the same supercell, so that there is no FORCES_FC2.
    written = {path.name for path in (folder / "phono3py").iterdir()}
    kappa = {"kappa-m333.hdf5", "kappa-m333.wigner.hdf5"}
    assert written == {"phono3py_disp.yaml", "FORCES_FC3", "fc2.hdf5", "fc3.hdf5", *kappa}
