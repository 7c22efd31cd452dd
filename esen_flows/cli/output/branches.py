"""The structures that an exploration found, as an indented list."""

from collections.abc import Iterator
from fractions import Fraction

from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.exploration import Branch, lowest_branch


def branch_lines(document: ResultDocument) -> Iterator[str]:
    """Lines of a report: each structure below the one of which it is a branch.

    Parameters
    ----------
    document
        Stored result.

    Yields
    ------
    str
        A line; none for a result without branches.
    """
    stored = (document.output or {}).get("branches") if document.kind == "relax" else None
    if not stored:
        return
    branches = [Branch.model_validate(one) for one in stored]
    lowest = lowest_branch(branches)
    yield "structures found, with their energies above the lowest one:"
    yield from _below(None, branches, lowest)


def _below(parent: int | None, branches: list[Branch], lowest: int) -> Iterator[str]:
    for number, branch in enumerate(branches):
        if branch.parent == parent:
            mark = "  <- lowest" if number == lowest else ""
            yield f"{'  ' * branch.depth}{number}  {_words(branch, branches[lowest])}{mark}"
            yield from _below(number, branches, lowest)


def _words(branch: Branch, lowest: Branch) -> str:
    if branch.failure is not None:
        return f"failed: {branch.failure}"
    assert branch.energy_per_atom_ev is not None  # it did not fail
    assert lowest.energy_per_atom_ev is not None
    above = 1000.0 * (branch.energy_per_atom_ev - lowest.energy_per_atom_ev)
    atoms = f"{branch.atoms} atom{'s' * (branch.atoms != 1)}"
    words = f"{branch.space_group_symbol} ({branch.space_group}), {atoms}, {above:.2f} meV/atom"
    if branch.frequency_thz is not None and branch.q_point is not None:
        point = ", ".join(str(Fraction(component).limit_denominator(24)) for component in branch.q_point)
        words += f"; by {branch.frequency_thz:.2f} THz at q = ({point}) in subgroup {branch.subgroup}"
    if branch.verdict:
        words += f"; {branch.verdict}, lowest frequency {branch.lowest_frequency_thz:.2f} THz"
    return f"{words}; {branch.key[:12]}" if branch.key else words
