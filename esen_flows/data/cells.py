"""Functions of many 3 x 3 matrices, in closed form or with a fixed number of steps.

The functions of `torch.linalg` wait for a GPU to see whether they have failed; these never do. The results of singular
matrices are infinite or NaN.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def cofactors(matrices: Tensor) -> Tensor:
    """Transposed adjugates.

    Parameters
    ----------
    matrices
        (n, 3, 3).

    Returns
    -------
    Tensor
        (n, 3, 3).
    """
    a, b, c = matrices.unbind(1)
    cross = torch.linalg.cross
    return torch.stack((cross(b, c), cross(c, a), cross(a, b)), dim=1)


def determinant(matrices: Tensor) -> Tensor:
    """Determinants.

    Parameters
    ----------
    matrices
        (n, 3, 3).

    Returns
    -------
    Tensor
        (n,).
    """
    a, b, c = matrices.unbind(1)
    return (a * torch.linalg.cross(b, c)).sum(dim=1)


def inverse(matrices: Tensor) -> Tensor:
    """Inverses.

    Parameters
    ----------
    matrices
        (n, 3, 3).

    Returns
    -------
    Tensor
        (n, 3, 3).
    """
    cofactor = cofactors(matrices)
    value = (matrices[:, 0] * cofactor[:, 0]).sum(dim=1)
    return cofactor.transpose(1, 2) / value.view(-1, 1, 1)


def vectors_times(vectors: Sequence[Tensor], matrices: Tensor, owner: Tensor) -> list[Tensor]:
    """Row vectors times the matrix of their structure, by components.

    It is several times faster on a CPU than a batched product of rows of three numbers.

    Parameters
    ----------
    vectors
        Three tensors (n,): the components of the vectors.
    matrices
        (structures, 3, 3).
    owner
        (n,) int64 structure of each vector.

    Returns
    -------
    list[Tensor]
        Three tensors (n,): the components of the products.
    """
    columns = matrices.permute(1, 2, 0).contiguous()
    results = []
    for k in range(3):
        total = vectors[0] * columns[0, k].index_select(0, owner)
        for row in (1, 2):
            total.addcmul_(vectors[row], columns[row, k].index_select(0, owner))
        results.append(total)
    return results
