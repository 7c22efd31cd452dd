"""Types of the fields of protocols, with the bounds within which they make sense."""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt

Method = Literal["rta", "wigner", "lbte"]
# Where a negative frequency may be noise: within the reach of the supercell, or at Gamma alone as for PhononDB's 103.
ImaginaryTest = Literal["near_gamma", "gamma"]
ForceConstants = Literal["finite_displacement", "autodiff"]
ForceConstantAverage = Literal["none", "equivalents", "rotations"]
# The conventional cell that is displaced: with canonical axes, origin and order of atoms, or with those of the input.
Setting = Literal["canonical", "as_given"]
Vector3 = tuple[float, float, float]
Matrix3 = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]


# Beyond these bounds work is refused before anything is allocated for it.
MOST_CELLS, MOST_MESH_POINTS, MOST_TEMPERATURES, HIGHEST_KELVIN = 20_000, 10_000_000, 10_000, 1e5
Tolerance = Annotated[PositiveFloat, Field(le=1.0)]  # of symmetry searches; atoms are farther apart
Length = Annotated[PositiveFloat, Field(le=1000.0)]
Steps = Annotated[PositiveInt, Field(le=10_000_000)]


def _diagonal(value: Any) -> Any:
    """Three integers as a diagonal supercell."""
    if isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(v, int) for v in value):
        return tuple(tuple(v if i == j else 0 for j in range(3)) for i, v in enumerate(value))
    return value


def _right_handed(value: Matrix3) -> Matrix3:
    (a, b, c), (d, e, f), (g, h, i) = value
    n_cells = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    if n_cells <= 0:
        raise ValueError("a supercell needs a positive determinant, such as 2,2,2")
    if n_cells > MOST_CELLS or max(map(abs, (a, b, c, d, e, f, g, h, i))) > MOST_CELLS:
        raise ValueError(
            f"a supercell of {n_cells} cells, or with such entries, is too large; at most {MOST_CELLS} cells"
        )
    return value


def _within_reach(value: tuple[int, int, int]) -> tuple[int, int, int]:
    """Refuse a mesh whose arrays no machine holds."""
    if math.prod(value) > MOST_MESH_POINTS:
        raise ValueError(f"a mesh of {math.prod(value)} q-points is too large; at most {MOST_MESH_POINTS}")
    return value


def _invertible(value: tuple[Vector3, Vector3, Vector3]) -> tuple[Vector3, Vector3, Vector3]:
    (a, b, c), (d, e, f), (g, h, i) = value
    if not 0.05 < a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g) < 20.0:
        raise ValueError("a deformation changes the volume by a positive factor, from 0.05 to 20")
    return value


def _ascending(value: tuple[float, ...]) -> tuple[float, ...]:
    """Refuse temperatures in another order than that in which results list them and figures draw them."""
    if not value or list(value) != sorted(set(value)):
        raise ValueError(f"temperatures_kelvin must be ascending and not empty, got {str(value)[:200]}")
    if len(value) > MOST_TEMPERATURES or value[-1] > HIGHEST_KELVIN:
        raise ValueError(f"at most {MOST_TEMPERATURES} temperatures up to {HIGHEST_KELVIN:g} K, got {len(value)}")
    return value


def one_or_more(value: Any) -> Any:
    """A single number or word as a list with one entry.

    Parameters
    ----------
    value
        Value of a field that takes a list.

    Returns
    -------
    Any
        A tuple with the number or word; any other value as it is.
    """
    return (value,) if isinstance(value, str | int | float) else value


Supercell = Annotated[Matrix3, BeforeValidator(_diagonal), AfterValidator(_right_handed)]
Mesh = Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], AfterValidator(_within_reach)]
Temperatures = Annotated[tuple[PositiveFloat, ...], BeforeValidator(one_or_more), AfterValidator(_ascending)]
TemperaturesFromZero = Annotated[tuple[NonNegativeFloat, ...], BeforeValidator(one_or_more), AfterValidator(_ascending)]
Deformation = Annotated[tuple[Vector3, Vector3, Vector3], AfterValidator(_invertible)]
Methods = Annotated[tuple[Method, ...], BeforeValidator(one_or_more), Field(min_length=1)]
