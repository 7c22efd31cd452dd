"""Symmetric tensors and their orthonormal components: one isotropic, and five traceless ones."""

import torch
from torch import Tensor


def stress_tensor(isotropic: Tensor, anisotropic: Tensor) -> Tensor:
    """Symmetric tensors from their orthonormal components.

    Parameters
    ----------
    isotropic
        (systems,) coefficient of the unit trace.
    anisotropic
        (systems, 5) coefficients in the order xz, xy, 2yy - xx - zz, yz, zz - xx.

    Returns
    -------
    Tensor
        (systems, 3, 3).
    """
    trace, others = _stress_basis(isotropic)
    return isotropic.view(-1, 1, 1) * trace + torch.einsum("sk,kij->sij", anisotropic, others)


def stress_components(stress: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal components of symmetric tensors, the inverse of `stress_tensor`.

    Parameters
    ----------
    stress
        (systems, 3, 3).

    Returns
    -------
    tuple[Tensor, Tensor]
        Isotropic (systems,) and anisotropic (systems, 5) components.
    """
    trace, others = _stress_basis(stress)
    return torch.einsum("sij,ij->s", stress, trace), torch.einsum("sij,kij->sk", stress, others)


def _stress_basis(like: Tensor) -> tuple[Tensor, Tensor]:
    """The unit trace (3, 3), and five symmetric traceless tensors (5, 3, 3) of unit norm, orthogonal to each other."""
    x, y, z = (torch.nn.functional.one_hot(torch.tensor(i), 3).to(like.device, like.dtype) for i in range(3))

    def symmetric(a: Tensor, b: Tensor) -> Tensor:
        return (torch.outer(a, b) + torch.outer(b, a)) / 2

    others = (
        2**0.5 * symmetric(x, z),
        2**0.5 * symmetric(x, y),
        (2 * torch.outer(y, y) - torch.outer(x, x) - torch.outer(z, z)) / 6**0.5,
        2**0.5 * symmetric(y, z),
        (torch.outer(z, z) - torch.outer(x, x)) / 2**0.5,
    )
    return torch.eye(3, device=like.device, dtype=like.dtype) / 3**0.5, torch.stack(others)
