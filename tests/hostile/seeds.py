"""Valid files of every entrance, made once; hostile inputs are changes of them."""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def make_structures(folder: Path) -> None:
    """Copper-gold and aluminium in the formats of files that people have."""
    from ase.build import bulk
    from ase.io import write

    folder.mkdir()
    alloy = bulk("Cu", cubic=True)
    alloy.symbols[0] = "Au"
    alloy.rattle(0.01, seed=1)
    for name in (
        "a.cif",
        "a.vasp",
        "a.extxyz",
        "a.xsf",
        "a.json",
        "a.traj",
        "a.gen",
        "a.pdb",
        "a.res",
        "a.cfg",
        "a.in",
    ):
        options = {"format": "aims"} if name == "a.in" else {"format": "vasp"} if name == "a.vasp" else {}
        write(folder / name, alloy, **options)
    write(folder / "many.extxyz", [bulk("Al"), bulk("Ni"), bulk("Pd")])


def make_born(folder: Path) -> None:
    """Charges of copper-gold."""
    import numpy as np
    from ase.build import bulk
    from ase.io import write
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    folder.mkdir()
    alloy = bulk("CuAu", "cesiumchloride", a=3.1)
    write(folder / "CuAu.extxyz", alloy)
    cell = PhonopyAtoms(symbols=["Cu", "Au"], cell=alloy.cell.array, scaled_positions=alloy.get_scaled_positions())
    phonon = Phonopy(cell, np.eye(3, dtype=int), primitive_matrix="auto", log_level=0)
    charges = np.array([np.eye(3), -np.eye(3)])
    phonon.nac_params = {"born": charges, "dielectric": np.eye(3) * 3.0, "factor": 14.4}
    phonon.save(folder / "phonopy_params.yaml")
    (folder / "BORN").write_text("14.4\n3 0 0 0 3 0 0 0 3\n1 0 0 0 1 0 0 0 1\n-1 0 0 0 -1 0 0 0 -1\n")


def make_store(folder: Path) -> None:
    """An archive, a spool, and a frozen campaign, from the database that the environment names."""
    from ase.build import bulk
    from emt_campaigns import finish
    from whole_store import fill

    from esen_flows.campaigns.freeze import freeze
    from esen_flows.settings import Settings
    from esen_flows.store.connection import open_store
    from esen_flows.store.exchange.spool_store import SpoolStore
    from esen_flows.store.exchange.transfer import export_archive

    store = open_store()
    keys = fill(store)
    export_archive(store, folder / "archive.tar")
    spool = SpoolStore(folder / "spool")
    spool.put_structure(bulk("GaAs", "zincblende", 5.65), material_ids=["mp-2534"])
    for name in ("relax", "forces", "phonon", "retried", "pending"):
        result = store.get(keys[name])
        claim = spool.get_or_claim(keys[name], force=True)
        assert result is not None
        spool.commit(claim, result)
    spool.close()
    finish(store, [bulk("Cu"), bulk("Al"), bulk("Ni", cubic=True)], "frozen_one")
    freeze(store, "frozen_one", folder / "frozen")
    store.database.drop()
    store.close()
    assert Settings().data_dir.is_dir()


def make_models(folder: Path) -> None:
    """A checkpoint with random weights, cards, and training files."""
    from small_force_field import small_checkpoint

    from esen_flows.forcefield import checkpoint

    checkpoint.save(folder / "small.safetensors", small_checkpoint(elements=(13, 29, 79)))
    for name in ("emt", "esen_nano"):
        (folder / "cards" / name).mkdir(parents=True)
        shutil.copy(ROOT / "models" / name / "card.yaml", folder / "cards" / name)
    shutil.copy(ROOT / "models" / "esen_nano" / "anneal.yaml", folder / "training.yaml")


def make_data(folder: Path) -> None:
    """Labelled frames, their dataset folder, and a recipe."""
    import numpy as np
    from ase.build import bulk
    from ase.calculators.emt import EMT
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    from esen_flows.cli.app import main

    folder.mkdir()
    frames = []
    for seed in range(6):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell * (0.97 + 0.01 * seed), scale_atoms=True)
        atoms.rattle(0.05, seed=seed)
        atoms.calc = EMT()
        energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=stress)
        frames.append(atoms)
    write(folder / "frames.extxyz", frames)
    write(folder / "frames.traj", frames)
    write(folder / "frames.json", frames)
    np.savez(folder / "frames.npz", forces=np.zeros((6, 4, 3)))
    try:
        main(
            ["data", "import", str(folder / "frames.extxyz"), "--output", str(folder / "dataset"), "--no-check-strain"]
        )
    except SystemExit as end:
        if end.code:
            raise RuntimeError("the dataset was not imported") from end
    (folder / "recipe.yaml").write_text(
        "seed: 7\ngroups:\n  - name: rattled\n    prototype: rocksalt\n    species: [Cu, Au]\n"
        "    lattice_angstrom: [5.35, 5.45]\n    count: 2\n    rattle_angstrom: [0.01, 0.05]\n"
        "    volume_strain: [-0.02, 0.02]\n    repeat: [1, 1, 1]\n"
    )


def make_specs(folder: Path) -> None:
    """A specification of a campaign and its structures."""
    from ase.build import bulk
    from ase.io import write

    folder.mkdir()
    write(folder / "metals.extxyz", [bulk("Al"), bulk("Ni"), bulk("Pd")])
    (folder / "spec.yaml").write_text(
        "name: metals\ndescription: three metals\nproperty: phonon\nstructures:\n  file: [metals.extxyz]\n"
        "models: [emt]\ndtype: float64\nsettings:\n  mesh: [2, 2, 2]\n  displacement.fc2_supercell: [1, 1, 1]\n"
        "  relax.fmax_ev_per_angstrom: 0.01\nrequire: [conservative]\ntags: [one]\n"
    )


def make_all(folder: Path) -> None:
    """Make all seeds in a folder."""
    folder.mkdir(parents=True)
    make_structures(folder / "structures")
    make_born(folder / "born")
    make_store(folder)
    make_models(folder)
    make_data(folder / "data")
    make_specs(folder / "specs")
