"""Recipes of one group, for tests."""

from esen_flows.data.recipes import Recipe, recipe_from_dict

SILICON = {"name": "g", "prototype": "diamond", "lattice_angstrom": 5.43, "count": 3}


def recipe_of(**group: object) -> Recipe:
    """A recipe of one group of silicon."""
    return recipe_from_dict({"seed": 7, "groups": [{**SILICON, **group}]})


def recipe_of_crystals(crystals: object, **group: object) -> Recipe:
    """A recipe of one group of crystals of the recipe's list."""
    base = {"name": "g", "crystals_of": ["diamond"], "count": 2}
    return recipe_from_dict({"seed": 7, "crystals": crystals, "groups": [{**base, **group}]})
