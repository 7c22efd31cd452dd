"""Exponentials and logarithms of many deformations by a fixed number of products, so that nothing waits for a GPU.

Errors are below 1e-13 for logarithms of a norm up to 3; the trace of 3 is a volume that changes by a factor of 20.
"""

import torch
from torch import Tensor

from esen_flows.data.cells import inverse

SQUARINGS = 5  # the norm of 3 becomes 0.1, where the terms beyond the 8th power are below rounding
SQUARE_ROOTS = 6  # the same for the logarithm
_COEFFICIENTS = (1.0, 1.0, 1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720, 1 / 5040, 1 / 40320)


def exponential(matrices: Tensor) -> Tensor:
    """Matrix exponentials.

    Parameters
    ----------
    matrices
        (n, 3, 3) float64.

    Returns
    -------
    Tensor
        (n, 3, 3).
    """
    c, one = _COEFFICIENTS, torch.eye(3, dtype=matrices.dtype, device=matrices.device)
    a = matrices / 2**SQUARINGS
    square = a @ a
    cube = square @ a
    result = c[6] * one + c[7] * a + c[8] * square
    for low in (3, 0):
        result = c[low] * one + c[low + 1] * a + c[low + 2] * square + cube @ result
    for _ in range(SQUARINGS):
        result = result @ result
    return result


def exponential_adjoint(matrices: Tensor, directions: Tensor) -> Tensor:
    """Gradients of <exp(A), G> with respect to A, which are the derivatives of exp at A^T along G.

    Parameters
    ----------
    matrices
        (n, 3, 3) float64 matrices A.
    directions
        (n, 3, 3) float64 matrices G.

    Returns
    -------
    Tensor
        (n, 3, 3).
    """
    # `exponential` with the derivative of every product beside it; d_ marks the derivatives.
    c, one = _COEFFICIENTS, torch.eye(3, dtype=matrices.dtype, device=matrices.device)
    a, d_a = matrices.transpose(1, 2) / 2**SQUARINGS, directions / 2**SQUARINGS
    square, d_square = a @ a, a @ d_a + d_a @ a
    cube, d_cube = square @ a, square @ d_a + d_square @ a
    result, d_result = c[6] * one + c[7] * a + c[8] * square, c[7] * d_a + c[8] * d_square
    for low in (3, 0):
        d_result = c[low + 1] * d_a + c[low + 2] * d_square + cube @ d_result + d_cube @ result
        result = c[low] * one + c[low + 1] * a + c[low + 2] * square + cube @ result
    for _ in range(SQUARINGS):
        result, d_result = result @ result, result @ d_result + d_result @ result
    return d_result


def logarithm(matrices: Tensor) -> Tensor:
    """Principal logarithms: square roots until near one, then the series of 2 atanh((F - 1)/(F + 1)).

    Parameters
    ----------
    matrices
        (n, 3, 3) float64 matrices F.

    Returns
    -------
    Tensor
        (n, 3, 3).
    """
    one, root = torch.eye(3, dtype=matrices.dtype, device=matrices.device), matrices
    for _ in range(SQUARE_ROOTS):
        root = _square_root(root)
    u = (root - one) @ inverse(root + one)  # the factors commute
    power, total, square = u, u, u @ u
    for odd in range(3, 15, 2):
        power = power @ square
        total = total + power / odd
    return 2.0 ** (SQUARE_ROOTS + 1) * total


def _square_root(matrices: Tensor) -> Tensor:
    """Principal square roots by the product form of Denman and Beavers' iteration, which converges quadratically."""
    root, other = matrices, torch.eye(3, dtype=matrices.dtype, device=matrices.device).expand_as(matrices)
    for _ in range(8):
        root, other = 0.5 * (root + inverse(other)), 0.5 * (other + inverse(root))
    return root
