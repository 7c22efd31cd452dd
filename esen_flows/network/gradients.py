"""Gradients with respect to inputs alone, for autograd functions that are written by hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_WITHOUT_PARAMETERS: ContextVar[bool] = ContextVar("_WITHOUT_PARAMETERS", default=False)


@contextmanager
def gradients_without_parameters() -> Iterator[None]:
    """A context in which gradients are computed for inputs alone, and not for weights.

    Torch's own functions know which gradients are read; functions that are written by hand have to be told when forces
    are computed. Only for `torch.autograd.grad`: with `backward`, weights would silently get no gradient.

    Yields
    ------
    None
        Nothing.
    """
    token = _WITHOUT_PARAMETERS.set(True)
    try:
        yield
    finally:
        _WITHOUT_PARAMETERS.reset(token)


def leaves_out_parameters() -> bool:
    """Whether gradients of weights are left out at present.

    Returns
    -------
    bool
        True within `gradients_without_parameters`.
    """
    return _WITHOUT_PARAMETERS.get()
