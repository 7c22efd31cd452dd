"""Labelling: labels and provenance, resumption, and shards."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from esen_flows.data.extxyz import read_provenance, sidecar_path
from esen_flows.data.importing import read_dataset
from esen_flows.data.prototypes import Crystal
from esen_flows.errors import FolderInUseError, InputError
from esen_flows.forcefield.contract import Declaration, Evaluation
from esen_flows.forcefield.symmetrized import Symmetrized
from esen_flows.forcefield.third_party.any_ase import AseForceField
from esen_flows.training.label import label, merge, refuse_foreign_labels, shard_path


class Interrupted(Exception):
    pass


class Labeller(AseForceField):
    """EMT plus a uniform force, which no mirror-symmetric force field has; can stop after a number of structures."""

    def __init__(self, stop_after: int | None = None, key: str = "emt") -> None:
        declaration = Declaration(True, "SO3", False, None, "float64")
        super().__init__(EMT(), key=key, label="EMT with a bias", declaration=declaration)
        self.stop_after = stop_after

    def evaluate(self, structures: Sequence[Atoms]) -> list[Evaluation]:
        if self.stop_after is not None and self.force_evaluations >= self.stop_after:
            raise Interrupted
        return [Evaluation(r.energy, r.forces + 0.5, r.stress, r.energies) for r in super().evaluate(structures)]


@pytest.fixture(name="structures")
def _structures() -> list[Atoms]:
    made = []
    for seed in range(7):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=seed)
        atoms.info["group"] = "odd" if seed % 2 else "even"
        made.append(atoms)
    return made


def _exact(atoms: Atoms) -> np.ndarray:
    work = atoms.copy()
    work.calc = EMT()
    return work.get_forces()


def test_labels_are_averaged_with_the_inverse(tmp_path, structures):
    for item, atoms in zip(read_dataset(label(structures, Labeller(), tmp_path / "a.xyz")), structures, strict=True):
        np.testing.assert_allclose(item.forces, _exact(atoms), atol=1e-8)
        assert item.group == atoms.info["group"]
    as_is = read_dataset(label(structures, Labeller(), tmp_path / "b.xyz", average_inversion=False))
    np.testing.assert_allclose(as_is[0].forces, _exact(structures[0]) + 0.5, atol=1e-8)


def test_provenance_names_labeller_structures_and_versions(tmp_path, structures):
    path = label(structures, Labeller(), tmp_path / "a.xyz", recipe_hash="abc", licence="free", batch_size=3)
    provenance = read_provenance(path)
    assert provenance["labeller"]["key"] == Symmetrized(Labeller()).key
    assert provenance["labeller"]["inner_key"] == "emt"
    assert provenance["averaged_with_inversion"] is True
    assert provenance["groups"] == {"even": 4, "odd": 3}
    assert (provenance["count"], provenance["atoms"]) == (7, 28)
    assert (provenance["recipe_hash"], provenance["licence"]) == ("abc", "free")
    assert "crystals" not in provenance
    assert provenance["versions"]["ase"]
    assert provenance["seconds"] > 0
    assert provenance["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sorted(p.name for p in tmp_path.glob("[!.]*")) == ["a.xyz", "a.xyz.json"]


def test_lattice_constants_are_in_the_provenance(tmp_path, structures):
    crystal = Crystal("Cu", "fcc", ("Cu",), 3.61)
    provenance = read_provenance(label(structures, Labeller(), tmp_path / "a.xyz", crystals=[crystal]))
    (found,) = provenance["crystals"]
    assert (found["name"], found["prototype"], found["species"], found["lattice_angstrom"]) == (
        "Cu",
        "fcc",
        ["Cu"],
        3.61,
    )


def test_an_interrupted_labelling_is_resumed(tmp_path, structures):
    path = tmp_path / "a.xyz"
    with pytest.raises(Interrupted):
        label(structures, Labeller(stop_after=6), path)
    assert not path.exists()
    labels = shard_path(path, 0, 1)
    with labels.open("a") as stream:
        stream.write('{"index": 3, "group": "od')  # what a kill in the middle of a write leaves
    second, seen = Labeller(), []
    label(structures, second, path, progress=lambda done, total: seen.append((done, total)))
    assert second.force_evaluations == 2 * 4
    assert seen == [(4, 7), (5, 7), (6, 7), (7, 7)]
    whole = label(structures, Labeller(), tmp_path / "b.xyz")
    assert path.read_bytes() == whole.read_bytes()


def test_resume_false_starts_afresh_and_foreign_labels_are_refused(tmp_path, structures):
    path = tmp_path / "a.xyz"
    with pytest.raises(Interrupted):
        label(structures, Labeller(stop_after=6), path)
    for other, force_field in ((structures, Labeller(key="other")), (structures[:5], Labeller())):
        with pytest.raises(InputError, match="labels of other structures or by another force field"):
            label(other, force_field, path)
    fresh = Labeller()
    label(structures, fresh, path, resume=False)
    assert fresh.force_evaluations == 14


def test_another_file_or_other_labels_are_not_overwritten(tmp_path, structures):
    path = tmp_path / "Cu.cif"
    path.write_text("a crystal")
    with pytest.raises(InputError, match=r"Cu.cif exists and is not of this labelling; choose another path"):
        label(structures, Labeller(), path)
    assert path.read_text() == "a crystal"
    labels = label(structures, Labeller(), tmp_path / "a.xyz")
    with pytest.raises(InputError, match="is not of this labelling"):
        label(structures[:3], Labeller(), labels)
    assert len(read_dataset(label(structures[:3], Labeller(), labels, resume=False))) == 3
    with pytest.raises(Interrupted):
        label(structures, Labeller(stop_after=6), tmp_path / "b.xyz")
    (tmp_path / "b.xyz").write_text("a file that came while the labelling was interrupted")
    with pytest.raises(InputError, match=r"b.xyz exists and is not of this labelling"):
        label(structures, Labeller(), tmp_path / "b.xyz")
    with pytest.raises(InputError, match=r"b.xyz exists and is not a labelling by EMT with a bias"):
        refuse_foreign_labels(tmp_path / "b.xyz", Labeller(), "")


def test_an_output_is_judged_before_its_structures_are_made(tmp_path, structures):
    path = tmp_path / "a.xyz"
    refuse_foreign_labels(path, Labeller(), "recipe")
    label(structures, Labeller(), path, recipe_hash="recipe")
    shard_path(path, 0, 1).write_text('{"labeller": "a leftover"}\n')  # `label` reads the finished file alone
    refuse_foreign_labels(path, Labeller(), "recipe")
    with pytest.raises(InputError, match="holds labels of another version of the recipe"):
        refuse_foreign_labels(path, Labeller(), "edited")
    with pytest.raises(InputError, match="not a labelling by EMT with a bias"):
        refuse_foreign_labels(path, Labeller(key="other"), "recipe")
    for damaged in ("[1, 2]", "3"):
        sidecar_path(path).write_text(damaged)
        with pytest.raises(InputError, match="is not the provenance of a dataset"):
            refuse_foreign_labels(path, Labeller(), "recipe")
    shard_path(tmp_path / "c.xyz", 0, 1).write_bytes(b"\xff\xfe\n")
    with pytest.raises(InputError, match="is damaged"):
        refuse_foreign_labels(tmp_path / "c.xyz", Labeller(), "recipe")


def test_two_processes_do_not_label_one_shard(tmp_path, structures):
    path, met = tmp_path / "a.xyz", []

    def meanwhile(done: int, _: int) -> None:
        if done == 1:
            with pytest.raises(FolderInUseError, match="another process writes into"):
                label(structures, Labeller(), path)
            met.append(done)

    assert len(read_dataset(label(structures, Labeller(), path, progress=meanwhile))) == len(structures)
    assert met == [1]


def test_shards_merge_into_the_same_file(tmp_path, structures):
    whole = label(structures, Labeller(), tmp_path / "whole.xyz")
    path = tmp_path / "a.xyz"
    assert label(structures, Labeller(), path, shard=(0, 2)) == shard_path(path, 0, 2)
    with pytest.raises(InputError, match=r"shard 1 of 2 .* is missing"):
        merge(path, 2)
    with pytest.raises(Interrupted):
        label(structures, Labeller(stop_after=2), path, shard=(1, 2))
    with pytest.raises(InputError, match=r"2 of 7 structures of .* are not labelled yet"):
        merge(path, 2)
    label(structures, Labeller(), path, shard=(1, 2))
    assert merge(path, 2).read_bytes() == whole.read_bytes()
    assert read_provenance(path)["shards"] == 2
    assert sorted(p.name for p in tmp_path.glob("[!.]*")) == ["a.xyz", "a.xyz.json", "whole.xyz", "whole.xyz.json"]


def test_shards_of_different_labellings_do_not_merge(tmp_path, structures):
    path = tmp_path / "a.xyz"
    label(structures, Labeller(), path, shard=(0, 2))
    label(structures, Labeller(key="other"), path, shard=(1, 2))
    with pytest.raises(InputError, match="belongs to another labelling"):
        merge(path, 2)


def test_a_damaged_labels_file_is_named(tmp_path, structures):
    path = tmp_path / "a.xyz"
    label(structures, Labeller(), path, shard=(0, 2))
    labels = shard_path(path, 0, 2)
    labels.write_text(labels.read_text().replace("{", "", 1))
    with pytest.raises(InputError, match="is damaged"):
        label(structures, Labeller(), path, shard=(0, 2))


def test_a_molecule_is_labelled_without_stress(tmp_path):
    (item,) = read_dataset(label([molecule("H2O")], Labeller(), tmp_path / "m.xyz"))
    assert np.isnan(item.stress).all()


def test_impossible_requests_are_refused(tmp_path, structures):
    with pytest.raises(InputError, match="0 <= k < n, got \\(2, 2\\)"):
        label(structures, Labeller(), tmp_path / "a.xyz", shard=(2, 2))
    with pytest.raises(InputError, match="nothing to label"):
        label([], Labeller(), tmp_path / "a.xyz")
    assert list(tmp_path.iterdir()) == []


def test_the_header_of_labels_is_json(tmp_path, structures):
    file = label(structures, Labeller(), tmp_path / "a.xyz", shard=(0, 2))
    header = json.loads(file.read_text().splitlines()[0])
    assert header["labeller"]["label"] == "EMT with a bias, inversion-averaged"
    assert header["shard"] == [0, 2]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1, 2]", "line 1 is not a label"),
        ('{"count": 3}', "does not begin with a header of labels"),
        ('{"identity": "x", "count": -1}', "does not begin with a header"),
        ('{"identity": "x", "count": 2}\n{"energy": 1}', "line 2 is not a label"),
        ('{"identity": "x", "count": 2}\n{"index": true}', "line 2 is not a label"),
        ('{"identity": "x", "count": 900000000}\n{"index": 0}', r"899999999 of 900000000 .* \(first: 1\)"),
        ('{"identity": "x", "count": 1}\n{"index": 0}', "the labels of .* are damaged: KeyError"),
        ('{"identity": "x", "count": 1}\n{"index": 0, "numbers": "x"}', "the labels of .* are damaged"),
        ("[" * 100_000, "is damaged: maximum recursion depth"),
    ],
)
def test_shards_of_any_content_are_refused_in_one_message(tmp_path, line, message):
    shard_path(tmp_path / "a.xyz", 0, 1).write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        merge(tmp_path / "a.xyz", 1)
    assert not (tmp_path / "a.xyz").exists()
