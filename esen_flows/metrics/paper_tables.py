"""Tables 2 to 5 of the eSEN paper (arXiv 2502.12147), as far as their numbers are among our sources."""

from collections.abc import Sequence
from dataclasses import dataclass

from esen_flows.errors import InputError
from esen_flows.metrics.published import LeaderboardRow, published_rows, ranked

# The day on which the leaderboard took eSEN.
_PAPER_DAY = "2025-03-17"
# Name in the table of published results, title, format.
_DISCOVERY: tuple[tuple[str, str, str], ...] = (
    ("unique_F1", "F1", ".3f"),
    ("unique_DAF", "DAF", ".2f"),
    ("unique_Precision", "prec.", ".3f"),
    ("unique_Recall", "rec.", ".3f"),
    ("unique_Accuracy", "acc.", ".3f"),
    ("unique_MAE", "MAE", ".3f"),
    ("unique_R2", "R2", ".3f"),
    ("κ_SRME", "κ SRME", ".3f"),
    ("rmsd_1e-2", "RMSD", ".3f"),
)
_PHONONS: tuple[tuple[str, str, str], ...] = (
    ("mdr_max_frequency_mae_k", "ω max (K)", ".0f"),
    ("mdr_entropy_mae_j_per_k_mol", "S (J/K/mol)", ".0f"),
    ("mdr_free_energy_mae_kj_per_mol", "F (kJ/mol)", ".0f"),
    ("mdr_heat_capacity_mae_j_per_k_mol", "Cv (J/K/mol)", ".0f"),
)
# Name, displacement in Angstrom, the four errors; other models of the paper's table are not among our sources.
_MDR = (
    ("eSEN-30M-MP", "0.01", (21, 13, 5, 4)),
    ("eqV2 S DeNS", "0.01", (280, 224, 54, 94)),
    ("eqV2 S DeNS", "0.2", (58, 26, 8, 8)),
)


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper with our rows in place.

    Attributes
    ----------
    title
        Subject, and where the numbers are from.
    columns
        Name, title and format of each column.
    rows
        Rows, the best first.
    deviations
        For each row of a campaign, its source and key: the published row of the same force field, and the names of
        the columns that differ from it in the printed digits.
    """

    title: str
    columns: tuple[tuple[str, str, str], ...]
    rows: list[LeaderboardRow]
    deviations: dict[tuple[str, str], tuple[LeaderboardRow, frozenset[str]]]


def paper_table(number: int, own: Sequence[LeaderboardRow]) -> PaperTable:
    """One of the tables of the paper.

    Parameters
    ----------
    number
        Number of the table: 2 (compliant models), 3 (models trained on more) or 4 (phonons).
    own
        Rows of campaigns; they are added to each table that has a column of theirs.

    Returns
    -------
    PaperTable
        The table.

    Raises
    ------
    InputError
        No number of the table is among our sources.
    """
    if number == 4:
        rows = [_phonon_row(*row) for row in _MDR]
        columns, by = _PHONONS, "mdr_max_frequency_mae_k"
        title = "Table 4: errors of MDR phonons at 300 K (three rows of the paper; the others are not in our sources)"
    elif number in (2, 3):
        compliant = number == 2
        rows = [row for row in published_rows() if row.added <= _PAPER_DAY and row.compliant == compliant]
        rows = [row for row in rows if "unique_F1" in row.values and row.conservative is not None]
        columns, by = _DISCOVERY, "unique_F1"
        kind = "on MPtrj or other data of the Materials Project alone" if compliant else "on more data"
        title = (
            f"Table {number}: Matbench Discovery, models trained {kind}, taken until {_PAPER_DAY}; cards of July 2026"
        )
    else:
        raise InputError(
            f"table {number} of the paper (errors on SPICE-MACE-OFF) is not here, because none of its numbers is among "
            "our sources; 2, 3 and 4 are"
        )
    names = {name for name, _, _ in columns}
    ours = [row for row in own if names & row.values.keys()]
    shown = ranked([*rows, *ours], by)
    return PaperTable(title, columns, shown, {(row.source, row.key): _deviation(row, rows, columns) for row in ours})


def _phonon_row(name: str, displacement: str, errors: Sequence[float]) -> LeaderboardRow:
    values = dict(zip((column for column, _, _ in _PHONONS), map(float, errors), strict=True))
    return LeaderboardRow(f"{name} ({displacement} Å)", name, True, None, False, values)


def counterpart(label: str, rows: Sequence[LeaderboardRow]) -> LeaderboardRow | None:
    """The published row of a force field, found by its name.

    Parameters
    ----------
    label
        Name of a force field, as its card has it.
    rows
        Published rows.

    Returns
    -------
    LeaderboardRow or None
        The row whose key is the label with hyphens, alone or followed by a version; None if there is none or several.
    """
    key = label.lower().replace("_", "-")
    found = [each for each in rows if each.key == key] or [each for each in rows if each.key.startswith(f"{key}-")]
    return found[0] if len(found) == 1 else None


def _deviation(
    row: LeaderboardRow, rows: Sequence[LeaderboardRow], columns: Sequence[tuple[str, str, str]]
) -> tuple[LeaderboardRow, frozenset[str]]:
    theirs = counterpart(row.key, rows) or row
    both = [(name, form) for name, _, form in columns if name in row.values and name in theirs.values]
    return theirs, frozenset(
        name for name, form in both if format(row.values[name], form) != format(theirs.values[name], form)
    )
