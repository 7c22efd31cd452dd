"""Numbers as crystallographic files write them: with standard uncertainties, fractions and Fortran exponents."""

import math
import re

from esen_flows.errors import InputError

_UNCERTAINTY = re.compile(r"\(\d+\)$")
_FRACTION = re.compile(r"([+-]?\d+(?:\.\d*)?)/(\d+(?:\.\d*)?)")
_FORTRAN = re.compile(r"(?<![A-Za-z0-9_.+-])([+-]?(?:\d+\.?\d*|\.\d+))[dD]([+-]?\d+)(?![A-Za-z0-9_.])")


def is_unknown(value: str) -> bool:
    """Whether a value of a CIF is `?` (unknown) or `.` (not applicable).

    Parameters
    ----------
    value
        Text of the value.

    Returns
    -------
    bool
        True for these two.
    """
    return value in ("?", ".")


def number_of(text: str, what: str) -> float:
    """The number that a text writes: `5.43`, `5.43(1)`, `1/3`, `1.0D+00`.

    Parameters
    ----------
    text
        The text.
    what
        Name of the number for the error message.

    Returns
    -------
    float
        The number.

    Raises
    ------
    InputError
        The text is not a finite number; `?` and `.` are named as missing.

    Examples
    --------
    >>> number_of("5.4310(2)", "a"), number_of("1.0D+00", "x")
    (5.431, 1.0)
    """
    if is_unknown(text):
        raise InputError(f"{what} is {text!r}: the file does not give it; fill it in, or leave the site out")
    bare = _UNCERTAINTY.sub("", text.strip())
    if fraction := _FRACTION.fullmatch(bare):
        numerator, denominator = map(float, fraction.groups())
        if denominator:
            return numerator / denominator
    try:
        value = float(with_exponents(bare))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{what} is not a finite number: {text[:40]!r}")
    return value


def with_exponents(text: str) -> str:
    """A text with Fortran's exponents (`1.0D+00`) written with an E.

    Parameters
    ----------
    text
        Any text; words that only look similar (`1d`, `D2`) stay.

    Returns
    -------
    str
        The text.

    Examples
    --------
    >>> with_exponents("0.25d0 -1.5D-01 D2 4d")
    '0.25e0 -1.5e-01 D2 4d'
    """
    return _FORTRAN.sub(r"\1e\2", text)
