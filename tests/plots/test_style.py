"""Figure files are whole or absent, and their metadata name the result."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from esen_flows.errors import InputError
from esen_flows.plots.style import formula_text, labels_of, new_figure, origin_of, output_of, save
from esen_flows.schemas.documents import Failure


def test_save_writes_both_files_with_their_origin(relax_document, tmp_path: Path) -> None:
    with new_figure() as figure:
        figure.subplots().plot([1, 2])
        written = save(figure, tmp_path / "new" / "Si_0.03.png", origin_of(relax_document()))
    assert written == tmp_path / "new" / "Si_0.03.png"
    assert sorted(p.name for p in written.parent.iterdir()) == ["Si_0.03.png", "Si_0.03.svg"]
    assert Image.open(written).text["Description"] == "esen_flows relax c0ffee" + 58 * "0"
    assert "esen_flows relax c0ffee" in written.with_name("Si_0.03.svg").read_text()


def test_save_adds_the_suffix_to_a_name_with_dots(relax_document, tmp_path: Path) -> None:
    with new_figure() as figure:
        assert save(figure, tmp_path / "displacement_0.03", origin_of(relax_document())).name == "displacement_0.03.png"


def test_equal_documents_give_equal_files(relax_document, tmp_path: Path) -> None:
    for name in ("a", "b"):
        with new_figure() as figure:
            figure.subplots().plot([1, 2])
            save(figure, tmp_path / name, origin_of(relax_document()))
    for suffix in ("png", "svg"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_a_failure_leaves_the_old_file_and_no_temporary_file(relax_document, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.svg").write_text("old")

    def fail(self, path, **_):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Figure, "savefig", fail)
    with new_figure() as figure, pytest.raises(OSError, match="no space left"):
        save(figure, tmp_path / "a.png", origin_of(relax_document()))
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.svg": "old"}


def test_output_of_refuses_another_kind_and_a_failure(relax_document) -> None:
    with pytest.raises(InputError, match="shows a 'phonon' document, got 'relax'"):
        output_of(relax_document(), "phonon")
    failure = Failure(error="NotConvergedError", message="500 steps used up", final=True)
    failed = relax_document().model_copy(update={"state": "failed", "failure": failure, "output": None})
    with pytest.raises(InputError, match=r"NaCl failed \(500 steps used up\)"):
        output_of(failed, "relax")


def test_labels_tell_equal_force_fields_apart_by_key(relax_document) -> None:
    documents = [relax_document(), relax_document(key=64 * "a"), relax_document(model_label="other")]
    assert labels_of(documents) == ["chain_model (c0ffee00)", "chain_model (aaaaaaaa)", "other"]


def test_labels_name_the_settings_that_differ(relax_document) -> None:
    def labels(*documents: dict[str, Any]) -> list[str]:
        return labels_of([relax_document(**fields) for fields in documents])

    short = {"displacement": {"displacement_angstrom": 0.01, "fc2_supercell": None}}
    long = {"displacement": {"displacement_angstrom": 0.03, "fc2_supercell": [[2, 0, 0], [0, 2, 0], [0, 0, 4]]}}
    assert labels({"protocol": short}, {"protocol": long}) == [
        "displacement 0.01 Å, no fc2 supercell",
        "displacement 0.03 Å, fc2 supercell 2×2×4",
    ]
    # The title names a force field that all share; others stand in the legend.
    assert labels({"protocol": short}, {"protocol": short, "model_label": "other"}) == ["chain_model", "other"]
    assert labels({"numeric": {"dtype": "float32"}}, {"numeric": {"dtype": "float64"}, "model_label": "other"}) == [
        "chain_model, precision float32",
        "other, precision float64",
    ]


def test_formula_text() -> None:
    assert formula_text("Si12O24") == "Si$_{12}$O$_{24}$"
