"""How the results of a force field are given the symmetry that the force field itself may lack.

It is a field of protocols, beside `parity`, and not the `symmetry` of a relaxation: that one says whether the structure
keeps its space group.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from esen_flows.schemas.declarations import LEBEDEV_DEGREES
from esen_flows.schemas.frozen import Frozen

Average = Literal["none", "tetrahedral", "octahedral", "icosahedral", "lebedev", "random"]
Frame = Literal["crystal", "lab"]
MOST_ROTATIONS = 10_000
_FORM = (
    "give parts joined by +: project or project:SYMPREC; one of tetrahedral, octahedral, icosahedral, "
    "lebedev:DIRECTIONSxANGLES, random:COUNT:SEED; inversion; lab"
)


class ForceSymmetry(Frozen):
    """Average over rotations, and projection on the space group, of the results of a force field.

    Also written as text, of parts joined by "+": "project", "octahedral", "icosahedral+inversion", "lebedev:14x9",
    "random:32:7", "project+icosahedral+lab".

    Attributes
    ----------
    average
        Rotations over which energy, forces and stress are averaged: none, the default; the proper rotations of the
        tetrahedron (12), of the octahedron (24) or of the icosahedron (60); Lebedev's directions times angles about
        them; or random ones, the same for every structure and step.
    directions
        Number of Lebedev's directions.
    angles
        Number of equally spaced angles about each direction.
    rotations
        Number of random rotations.
    seed
        Seed of the random rotations.
    inversion
        Whether each rotation is also taken with the inversion. A protocol's parity "average" does the same for force
        fields that are not O(3)-equivariant.
    project
        Whether forces and stress are projected on the space group of the structure, found once where a calculation
        starts; it needs no further evaluation.
    symprec_angstrom
        Tolerance of the search for this space group in Angstrom.
    frame
        Axes of the rotations: "crystal", the default, those of the conventional cell of the lattice where a calculation
        starts, so that results turn with the crystal and its own rotations need no further evaluation; "lab", the
        Cartesian ones. Structures without three lattice vectors have Cartesian axes.

    Examples
    --------
    >>> ForceSymmetry.model_validate("icosahedral+inversion").count
    120
    >>> str(ForceSymmetry(average="lebedev", directions=14, angles=9, project=True))
    'project+lebedev:14x9'
    """

    average: Average = "none"
    directions: PositiveInt | None = None
    angles: PositiveInt | None = None
    rotations: Annotated[PositiveInt, Field(le=MOST_ROTATIONS)] | None = None
    seed: NonNegativeInt | None = None
    inversion: bool = False
    project: bool = False
    symprec_angstrom: Annotated[PositiveFloat, Field(le=1.0)] = 1e-5
    frame: Frame = "crystal"

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return _parsed(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _possible(self) -> "ForceSymmetry":
        needed = {"lebedev": {"directions", "angles"}, "random": {"rotations", "seed"}}.get(self.average, set())
        given = {name for name in ("directions", "angles", "rotations", "seed") if getattr(self, name) is not None}
        if given != needed:
            wanted = " and ".join(sorted(needed)) or "none of directions, angles, rotations and seed"
            raise ValueError(f"average={self.average} needs {wanted}, got {', '.join(sorted(given)) or 'none'}")
        if self.directions is not None and self.directions not in LEBEDEV_DEGREES:
            known = ", ".join(map(str, LEBEDEV_DEGREES))
            raise ValueError(f"there is no rule with positive weights on {self.directions} directions; choose {known}")
        if self.average == "none" and not self.inversion and not self.project:
            raise ValueError(f"nothing is averaged or projected; {_FORM}, or leave force_symmetry out")
        if self.count > 2 * MOST_ROTATIONS:
            raise ValueError(f"{self.count} evaluations of each structure are too many; at most {2 * MOST_ROTATIONS}")
        return self

    @property
    def count(self) -> int:
        """Number of rotations with and without inversion: evaluations of a structure without symmetry."""
        polyhedral = {"none": 1, "tetrahedral": 12, "octahedral": 24, "icosahedral": 60}
        rotations = polyhedral.get(self.average) or self.rotations or (self.directions or 1) * (self.angles or 1)
        return rotations * (2 if self.inversion else 1)

    def require_finer_than(self, displacement_angstrom: float) -> None:
        """Refuse a tolerance that would not see displacements.

        Parameters
        ----------
        displacement_angstrom
            Length of the displacements in Angstrom.

        Raises
        ------
        ValueError
            The tolerance is more than a tenth of that.
        """
        if self.symprec_angstrom > displacement_angstrom / 10:
            raise ValueError(
                f"force_symmetry: project:{self.symprec_angstrom:g} would not see displacements of "
                f"{displacement_angstrom:g} Angstrom; give a tolerance of at most a tenth of that"
            )

    def __str__(self) -> str:
        words: list[str] = []
        if self.project:
            default = type(self).model_fields["symprec_angstrom"].default
            words.append("project" if self.symprec_angstrom == default else f"project:{self.symprec_angstrom:g}")
        numbers = {"lebedev": f":{self.directions}x{self.angles}", "random": f":{self.rotations}:{self.seed}"}
        if self.average != "none":
            words.append(self.average + numbers.get(self.average, ""))
        return "+".join([*words, *["inversion"] * self.inversion, *["lab"] * (self.frame == "lab")])


def _parsed(text: str) -> dict[str, Any]:
    """Fields of the text form."""
    fields: dict[str, Any] = {}
    for part in text.strip().split("+"):
        new = _part(part.strip())
        if not new or set(new) & set(fields):
            near = " (whether a relaxed structure keeps its space group is another field: --set symmetry=lock)"
            hint = near if part in ("lock", "free", "fix", "explore") else ""
            raise ValueError(f"{part!r} is not understood{' or repeated' if new else ''}{hint}; {_FORM}")
        fields |= new
    return fields


def _part(part: str) -> dict[str, Any]:
    if part in ("tetrahedral", "octahedral", "icosahedral"):
        return {"average": part}
    if part in ("project", "inversion"):
        return {part: True}
    if part in ("lab", "crystal"):
        return {"frame": part}
    if found := re.fullmatch(r"project:([0-9.eE-]+)", part):
        return {"project": True, "symprec_angstrom": found[1]}
    if found := re.fullmatch(r"lebedev:(\d{1,6})x(\d{1,6})", part):
        return {"average": "lebedev", "directions": int(found[1]), "angles": int(found[2])}
    if found := re.fullmatch(r"random:(\d{1,6}):(\d{1,18})", part):
        return {"average": "random", "rotations": int(found[1]), "seed": int(found[2])}
    return {}
