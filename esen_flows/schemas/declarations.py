"""Properties that cards and force fields declare, and the errors where a purpose needs another one.

Only the standard library is needed here, because force fields run on machines without pydantic.
"""

from typing import Literal

from esen_flows.errors import NotConservativeError, NotDifferentiableError

# O3: exact under rotations and mirror images; SO3: under rotations only; approximate: under neither.
Equivariance = Literal["O3", "SO3", "approximate"]
# Treatment of mirror images: averaged over inversion, or as the force field gives them.
Parity = Literal["average", "as_is"]
# How forces and stress are predicted: as derivatives of the energy, or by heads of their own.
ForceKind = Literal["conservative", "direct"]
Dtype = Literal["float32", "float64"]
# Number of directions of Lebedev's rules with positive weights, and the degree up to which each is exact.
LEBEDEV_DEGREES = {6: 3, 14: 5, 26: 7, 38: 9, 50: 11, 86: 15, 110: 17, 146: 19, 170: 21, 194: 23}


def require_conservative(declared: bool, label: str, purpose: str) -> None:
    """Refuse a force field whose forces are not declared to be the gradient of its energy.

    Parameters
    ----------
    declared
        Whether the force field declares conservative forces.
    label
        Name of the force field, for the message.
    purpose
        Property or step that needs such forces, for the message.

    Raises
    ------
    NotConservativeError
        The force field does not declare conservative forces.
    """
    if not declared:
        raise NotConservativeError(
            f"{purpose} needs forces that are the gradient of an energy, but {label!r} does not declare conservative "
            "forces; use a conservative (fine-tuned) force field"
        )


def require_differentiable(declared: bool, label: str, purpose: str) -> None:
    """Refuse a force field without exact second derivatives of the energy.

    Parameters
    ----------
    declared
        Whether the force field declares exact second derivatives.
    label
        Name of the force field, for the message.
    purpose
        Property or step that needs them, for the message.

    Raises
    ------
    NotDifferentiableError
        The force field does not declare exact second derivatives.
    """
    if not declared:
        raise NotDifferentiableError(
            f"{purpose} needs exact second derivatives of the energy, which {label!r} does not have; use "
            "force_constants=finite_displacement"
        )
