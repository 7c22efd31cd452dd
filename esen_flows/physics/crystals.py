"""The crystals of a recipe at the lattice constants that a force field gives them."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from esen_flows.data.prototypes import Crystal, guessed, perfect, with_geometry_of
from esen_flows.data.recipes import Recipe
from esen_flows.data.size_classes import by_size_class
from esen_flows.errors import EsenFlowsError, InputError
from esen_flows.files import written_whole
from esen_flows.forcefield.contract import ForceField
from esen_flows.physics.relax import relax
from esen_flows.schemas.keys import sha256_of
from esen_flows.schemas.protocols import RelaxProtocol

# Without inversion averaging: each of these crystals is its own inverse, or a proper rotation of it.
PROTOCOL = RelaxProtocol(fmax_ev_per_angstrom=1e-4, max_steps=1000, symmetry="fix", parity="as_is")
Progress = Callable[[str, int, int], None]


def with_relaxed_crystals(
    recipe: Recipe, force_field: ForceField, file: Path | str, progress: Progress | None = None
) -> Recipe:
    """A recipe whose crystals all have a geometry: a force field relaxes those that have none.

    Every relaxation starts from bonds as long as the sum of covalent radii, so that no number of a table of lattice
    constants, and none of a benchmark's structures, goes in.

    Parameters
    ----------
    recipe
        Recipe with or without such crystals.
    force_field
        Decides the lattice constants.
    file
        Keeps every result as soon as it is known, so that an interrupted call goes on where it was, and a labelling
        goes on with the very same structures.
    progress
        Called with the name of a crystal, the number of those that are done and the number of all.

    Returns
    -------
    Recipe
        The recipe; the same one where nothing was missing.

    Raises
    ------
    InputError
        Some crystals cannot be relaxed: the message names them all. The others are kept.
    """
    missing = [crystal for crystal in recipe.crystals if crystal.lattice_angstrom is None]
    if not missing:
        return recipe
    file = Path(file)
    identity = sha256_of({"force_field": force_field.key, "protocol": PROTOCOL.hash()})
    found = _kept(file, identity)
    order = by_size_class([perfect(guessed(each)) for each in missing], force_field.declaration.cutoff_angstrom)
    failures = []
    for done, crystal in enumerate(missing[index] for index in order):
        known = found.get(crystal.name)
        if known is None or (known.prototype, known.species) != (crystal.prototype, crystal.species):
            try:
                found[crystal.name] = relaxed(crystal, force_field)
            except EsenFlowsError as error:
                failures.append(f"{crystal.name} ({error})")
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(file) as temporary:
                temporary.write_text(
                    json.dumps({"identity": identity, "crystals": list(map(asdict, found.values()))}) + "\n"
                )
        if progress is not None:
            progress(crystal.name, done + 1, len(missing))
    if failures:
        raise InputError(
            f"{force_field.label!r} cannot relax {len(failures)} of {len(missing)} crystals: {'; '.join(failures)}; "
            "give their lattice_angstrom in the recipe, or leave them out"
        )
    return replace(
        recipe, crystals=tuple(found.get(each.name, each) if each in missing else each for each in recipe.crystals)
    )


def relaxed(crystal: Crystal, force_field: ForceField) -> Crystal:
    """A crystal at the minimum of a force field's energy.

    Parameters
    ----------
    crystal
        Crystal of diamond, rocksalt, zincblende or wurtzite; its geometry is not read.
    force_field
        Force field.

    Returns
    -------
    Crystal
        The crystal with its lattice constant, and with c/a and u for wurtzite.

    Raises
    ------
    InputError
        The prototype is another one.
    EsenFlowsError
        The relaxation fails, as in `physics.relax.relax`.
    """
    output = relax(perfect(guessed(crystal)), force_field, PROTOCOL)
    return with_geometry_of(crystal, output.structure.to_atoms())


def _kept(file: Path, identity: str) -> dict[str, Crystal]:
    """Crystals that an earlier call relaxed with the same force field, by name."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        crystals = [Crystal(**(each | {"species": tuple(each["species"])})) for each in content["crystals"]]
        same = content["identity"] == identity
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged: {error!r:.200}; delete it and label again") from error
    if not same:
        raise InputError(f"{file} holds crystals relaxed by another force field; choose another output, or delete it")
    return {crystal.name: crystal for crystal in crystals}
