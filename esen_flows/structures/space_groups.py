"""Symmetry operations of the settings that space-group symbols name: spglib's table of 530 settings (Hall numbers).

A symbol may leave open which setting it means: origin, axes of rhombohedral groups, unique axis of monoclinic ones. The
cell decides what it can; what stays open is refused, with the names of the settings.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from esen_flows.errors import InputError

# Largest deviation of a metric tensor from the symmetry of its setting, relative to the product of the lengths.
METRIC_TOLERANCE = 0.01
# A suffix behind a symbol: `:1`, `:2`, `:H`, `:R`, or ICSD's S and Z (first and second origin), H and R.
_SUFFIX = re.compile(r"(?P<base>.+?)\s*(?::\s*(?P<colon>[12HRSZhrsz]|-?[abc123-]{1,5})|\s*(?P<tail>H|R|S|Z|HR|HS|RS))")
_CHOICE_OF_SUFFIX = {"S": "1", "Z": "2", "HR": "H", "HS": "H", "RS": "R"}
# Names before 1992, when the International Tables began to write e for double glide planes, of the axes abc, ba-c, cab,
# -cba, bca and a-cb.
_OLD_NAMES = {
    39: ("abm2", "bma2", "b2cm", "c2mb", "cm2a", "ac2m"),
    41: ("aba2", "bba2", "b2cb", "c2cb", "cc2a", "ac2a"),
    64: ("cmca", "ccmb", "abma", "acam", "bbcm", "bmab"),
    67: ("cmma", "cmmb", "abmm", "acmm", "bmcm", "bmam"),
    68: ("ccca", "cccb", "abaa", "acaa", "bbcb", "bbab"),
}


@dataclass(frozen=True)
class Setting:
    """A setting of a space group.

    Attributes
    ----------
    hall_number
        Its number in spglib, 1 to 530.
    number
        Number of the space group.
    choice
        spglib's name of the axes, cell or origin: "", "b1", "cab", "1", "2", "H", "R" and others.
    hall_symbol
        Its Hall symbol.
    symbols
        Its symbols without blanks.
    """

    hall_number: int
    number: int
    choice: str
    hall_symbol: str
    symbols: frozenset[str]

    @property
    def origin(self) -> str:
        """Number of the origin, where there are two."""
        return self.choice[:1] if self.choice[:1] in ("1", "2") else ""

    @property
    def name(self) -> str:
        """Symbol for messages, with the choice where there is one."""
        full = str(_kind(self.hall_number).international).partition("=")
        symbol = (full[2] or full[0]).strip().replace("_", "")
        suffix = self.origin or (self.choice if self.choice in ("H", "R") else "")
        return f"{symbol} :{suffix}" if suffix else symbol

    def operations(self) -> tuple[np.ndarray, np.ndarray]:
        """All symmetry operations.

        Returns
        -------
        tuple[np.ndarray, np.ndarray]
            Rotations (n, 3, 3) and translations (n, 3) of fractional coordinates.
        """
        import spglib

        with _without_announcements():
            found: Any = spglib.get_symmetry_from_database(self.hall_number)
        return np.array(found["rotations"]), np.array(found["translations"])

    def fits(self, cell: np.ndarray) -> bool:
        """Whether a cell has the shape of this setting.

        Parameters
        ----------
        cell
            (3, 3) lattice vectors as rows.

        Returns
        -------
        bool
            True if all rotations keep its lengths and angles.
        """
        return fits_metric(self.operations()[0], cell)


def fits_metric(rotations: np.ndarray, cell: np.ndarray) -> bool:
    """Whether rotations of fractional coordinates keep lengths and angles of a cell.

    Parameters
    ----------
    rotations
        (n, 3, 3) rotations.
    cell
        (3, 3) lattice vectors as rows.

    Returns
    -------
    bool
        True within one percent.
    """
    metric = cell @ cell.T
    lengths = np.sqrt(np.diag(metric))
    turned = rotations.transpose(0, 2, 1) @ metric @ rotations
    return bool((np.abs(turned - metric) <= METRIC_TOLERANCE * np.outer(lengths, lengths)).all())


@lru_cache(maxsize=1)
def all_settings() -> tuple[Setting, ...]:
    """The settings of spglib's table.

    Returns
    -------
    tuple[Setting, ...]
        530 settings.
    """
    settings: list[Setting] = []
    axes: dict[int, list[str]] = {number: [] for number in _OLD_NAMES}
    for hall_number in range(1, 531):
        kind = _kind(hall_number)
        full = _bare(kind.international_full)
        names = {full, *(_bare(part) for part in kind.international.split("="))}
        if 3 <= kind.number <= 15:
            # The symbol without its axes of order one; that before the equals sign is of the first setting alone.
            names = {full, _without_ones(kind.international_full)}
        else:
            names.add(_bare(kind.international_short))
        if kind.number >= 195:
            names |= {name.replace("-3", "3") for name in names}  # written so until 1983
        if kind.number in _OLD_NAMES:
            seen = axes[kind.number]
            seen += [kind.choice.lstrip("12")] if kind.choice.lstrip("12") not in seen else []
            names = {name for name in names if "e" in name} | {_OLD_NAMES[kind.number][len(seen) - 1]}
        settings.append(
            Setting(hall_number, kind.number, kind.choice, " ".join(kind.hall_symbol.split()), frozenset(names))
        )
    return tuple(settings)


def named_settings(symbol: str | None, number: int | None, hall: str | None) -> list[Setting]:
    """The settings that symbols and number leave possible.

    Parameters
    ----------
    symbol
        Hermann-Mauguin symbol, with or without the suffix of a setting.
    number
        Number of the space group.
    hall
        Hall symbol, which names one setting.

    Returns
    -------
    list[Setting]
        At least one setting.

    Raises
    ------
    InputError
        No setting has these names, or they contradict one another.
    """
    settings = list(all_settings())
    if hall is not None:
        wanted = " ".join(hall.split()).lower()
        settings = [one for one in settings if one.hall_symbol.lower() == wanted]
        _refuse_none(settings, f"the Hall symbol {hall!r}")
    if number is not None:
        settings = [one for one in settings if one.number == number]
        _refuse_none(settings, f"the number {number}" + ("" if hall is None else f" with the Hall symbol {hall!r}"))
        if hall is None and symbol is None:  # the number alone means the standard axes
            settings = [one for one in settings if one.choice in ("", "b", "b1", "1", "2", "H", "R")]
    if symbol is not None and hall is None:
        base, choice = _split(symbol)
        settings = [one for one in settings if _bare(base) in one.symbols]
        if choice is not None:
            settings = [one for one in settings if choice in (one.choice, one.origin)]
        _refuse_none(settings, f"the symbol {symbol!r}" + ("" if number is None else f" of the number {number}"))
    return settings


def setting_of(symbol: str | None, number: int | None, hall: str | None, cell: np.ndarray) -> list[Setting]:
    """The settings that names and cell leave possible; several only where they differ in the origin.

    Parameters
    ----------
    symbol, number, hall
        Names, as in `named_settings`.
    cell
        (3, 3) lattice vectors as rows.

    Returns
    -------
    list[Setting]
        One setting, or one for each origin.

    Raises
    ------
    InputError
        The names contradict one another or the cell, or leave the axes open.
    """
    named = named_settings(symbol, number, hall)
    fitting = [one for one in named if one.fits(cell)]
    what = _described(symbol, number, hall)
    if not fitting:
        raise InputError(
            f"the cell does not have the shape of {what} ({_listed(named)}); correct the cell or the symbol, or list "
            "the symmetry operations"
        )
    if len(fitting) > 1 and all(3 <= one.number <= 15 for one in fitting):
        # A cell of right angles fits every unique axis; without a word, it is b.
        fitting = [one for one in fitting if one.choice.startswith("b")] or fitting
    elif len(fitting) > 1:
        # C m m e and C c c e name two kinds of axes, one of which is standard.
        fitting = [one for one in fitting if one.choice in ("", "1", "2")] or fitting
    if len(fitting) > 1 and (len(fitting) > 2 or {one.origin for one in fitting} != {"1", "2"}):
        raise InputError(f"{what} means several settings ({_listed(fitting)}); write the one that is meant")
    return fitting


def _split(symbol: str) -> tuple[str, str | None]:
    """A symbol without its suffix, and the choice that the suffix names."""
    match = _SUFFIX.fullmatch(symbol.strip())
    if match is None:
        return symbol.strip(), None
    suffix = match["colon"] or match["tail"]
    suffix = suffix.upper() if suffix.upper() in "12HRSZ" else suffix
    return match["base"], _CHOICE_OF_SUFFIX.get(suffix, suffix)


@contextmanager
def _without_announcements() -> Iterator[None]:
    """A context without spglib's warnings that it will raise where it returns None today."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _kind(hall_number: int) -> Any:
    """Names of a setting in spglib."""
    import spglib

    with _without_announcements():
        return spglib.get_spacegroup_type(hall_number)


def _bare(symbol: str) -> str:
    return re.sub(r"[\s_()]", "", symbol).lower()


def _without_ones(full: str) -> str:
    """`P 1 2_1/n 1` as `p21/n`."""
    parts = full.split()
    return _bare("".join(parts[:1] + [part for part in parts[1:] if part != "1"]))


def _refuse_none(settings: Sequence[Setting], what: str) -> None:
    if not settings:
        raise InputError(
            f"{what} is not in the table of the 530 settings of the International Tables; correct it, or list the "
            "symmetry operations (_space_group_symop_operation_xyz)"
        )


def _described(symbol: str | None, number: int | None, hall: str | None) -> str:
    if hall is not None:
        return f"the Hall symbol {hall!r}"
    return f"space group {number}" if symbol is None else f"the symbol {symbol!r}"


def _listed(settings: Sequence[Setting]) -> str:
    return ", ".join(one.name for one in settings[:6]) + (", ..." if len(settings) > 6 else "")
