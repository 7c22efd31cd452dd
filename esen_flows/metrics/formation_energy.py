"""Formation energies of relaxed crystals: MP2020 corrections and the elemental references of the Materials Project."""

import gzip
import json
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pymatgen.core import Composition, Structure
from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
from pymatgen.entries.computed_entries import ComputedStructureEntry

from esen_flows.errors import InputError

# U of MPRelaxSet in eV, which the Materials Project applies to oxides and fluorides of these elements.
HUBBARD_U_EV = {"Co": 3.32, "Cr": 3.7, "Fe": 5.3, "Mn": 3.9, "Mo": 4.38, "Ni": 6.2, "V": 3.25, "W": 6.2}
_ANIONS_WITH_U = ("O", "F")


def read_elemental_references(path: Path) -> dict[str, float]:
    """Reference energies of the elements.

    Parameters
    ----------
    path
        2023-02-07-mp-elemental-reference-entries.json.gz: one computed entry for each element.

    Returns
    -------
    dict
        Corrected energy in eV/atom by element.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    try:
        entries: dict[str, dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))
        found = {}
        for element, entry in entries.items():
            n_atoms = Composition(entry["composition"]).num_atoms
            adjustments = sum(float(adjustment["value"]) for adjustment in entry.get("energy_adjustments", ()))
            correction = adjustments or float(entry.get("correction", 0.0))
            found[element] = (float(entry["energy"]) + correction) / n_atoms
        return found
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: no elemental references can be read ({type(error).__name__}: {error})") from None


def read_entry_parameters(path: Path) -> dict[str, dict[str, Any]]:
    """Parameters of DFT's calculations of WBM, which decide on the corrections that the leaderboard applies.

    Parameters
    ----------
    path
        2022-10-19-wbm-computed-structure-entries.jsonl.gz: an object with `material_id` and `computed_structure_entry`
        in each line.

    Returns
    -------
    dict
        `run_type`, `is_hubbard` and `hubbards` (eV) by material; materials with equal ones share an object.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    found, same = {}, dict[str, dict[str, Any]]()
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            for line in stream:
                record = json.loads(line)
                given = record["computed_structure_entry"]["parameters"]
                values = {"run_type": given["run_type"]}
                values |= {name: given[name] for name in ("is_hubbard", "hubbards") if name in given}
                found[str(record["material_id"])] = same.setdefault(json.dumps(values, sort_keys=True), values)
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: no computed entries can be read ({type(error).__name__}: {error})") from None
    return found


def relax_set_parameters(composition: Composition) -> dict[str, Any]:
    """Parameters of a calculation with MPRelaxSet, which decide on the corrections.

    Parameters
    ----------
    composition
        Composition of the crystal.

    Returns
    -------
    dict
        "run_type" ("GGA" or "GGA+U"), "is_hubbard" and "hubbards" (eV), as in entries of the Materials Project.
    """
    symbols = [element.symbol for element in composition.elements]
    with_u = any(symbol in _ANIONS_WITH_U for symbol in symbols)
    hubbards = {symbol: HUBBARD_U_EV[symbol] for symbol in symbols if symbol in HUBBARD_U_EV} if with_u else {}
    return {"run_type": "GGA+U" if hubbards else "GGA", "is_hubbard": bool(hubbards), "hubbards": hubbards}


def mp2020_correction(
    structure: Structure, energy_ev: float, parameters: Mapping[str, Any] | None = None
) -> float | None:
    """Energy correction of MaterialsProject2020Compatibility.

    Parameters
    ----------
    structure
        Relaxed crystal: its bond lengths tell oxides from peroxides and superoxides, and sulfides from polysulfides.
    energy_ev
        Energy of the crystal in eV.
    parameters
        Parameters of DFT's own entry of this crystal, which the leaderboard uses. Default: those of MPRelaxSet.

    Returns
    -------
    float or None
        Correction in eV; None for a crystal that the compatibility scheme rejects.
    """
    entry = ComputedStructureEntry(
        structure, energy_ev, parameters=dict(parameters or relax_set_parameters(structure.composition))
    )
    with warnings.catch_warnings():
        # pymatgen guesses oxidation states, and warns where it cannot; such crystals get no anion correction.
        warnings.simplefilter("ignore", UserWarning)
        processed = _scheme().process_entry(entry, clean=True)
    return None if processed is None else float(processed.correction)


@cache
def _scheme() -> MaterialsProject2020Compatibility:
    """The scheme, which reads a file when it is made."""
    return MaterialsProject2020Compatibility(check_potcar=False)


def formation_energy(energy_ev: float, composition: Composition, references_ev_per_atom: Mapping[str, float]) -> float:
    """Formation energy against the elements.

    Parameters
    ----------
    energy_ev
        Energy of the crystal in eV, with its correction where the force field's energies need one.
    composition
        Composition of the crystal.
    references_ev_per_atom
        Energy of each element in eV/atom.

    Returns
    -------
    float
        Formation energy in eV/atom.

    Raises
    ------
    InputError
        An element has no reference.
    """
    amounts = composition.get_el_amt_dict()
    missing = sorted(set(amounts) - set(references_ev_per_atom))
    if missing:
        raise InputError(f"{composition.reduced_formula}: no reference energy for {', '.join(missing)}")
    elements = sum(amount * references_ev_per_atom[element] for element, amount in amounts.items())
    return float((energy_ev - elements) / composition.num_atoms)


def total_energy(
    e_form_ev_per_atom: float, composition: Composition, references_ev_per_atom: Mapping[str, float]
) -> float:
    """Energy of a crystal from its formation energy.

    Parameters
    ----------
    e_form_ev_per_atom
        Formation energy in eV/atom.
    composition
        Composition of the crystal.
    references_ev_per_atom
        Energy of each element in eV/atom.

    Returns
    -------
    float
        Energy in eV, with the corrections that the formation energy has.

    Raises
    ------
    InputError
        An element has no reference.
    """
    return float(
        (e_form_ev_per_atom - formation_energy(0.0, composition, references_ev_per_atom)) * composition.num_atoms
    )
