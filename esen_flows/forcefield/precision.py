"""The precision of products on a GPU, which is part of every result's key."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def tensor_float_32(allowed: bool) -> Iterator[None]:
    """Context in which float32 products on GPUs may, or may not, be rounded to 10 bits.

    The setting of the program around it is restored at its end.

    Parameters
    ----------
    allowed
        Whether rounding is allowed.

    Yields
    ------
    None
        Nothing.
    """
    products = torch.backends.cuda.matmul
    name = "fp32_precision" if hasattr(products, "fp32_precision") else "allow_tf32"  # before PyTorch 2.9
    value = {"fp32_precision": "tf32" if allowed else "ieee", "allow_tf32": allowed}[name]
    before = getattr(products, name)
    setattr(products, name, value)
    try:
        yield
    finally:
        setattr(products, name, before)
