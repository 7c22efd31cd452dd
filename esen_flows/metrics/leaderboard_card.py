"""The model card of a submission to Matbench Discovery: metrics under its keys, checked against its schema."""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator, FormatChecker, ValidationError

from esen_flows.errors import InputError
from esen_flows.metrics.diatomics import AGAINST_REFERENCE, REFERENCE_FREE
from esen_flows.metrics.geometry import TOLERANCES
from esen_flows.metrics.md_artefact import METRICS as MD_METRICS
from esen_flows.yaml_files import read_yaml

# The leaderboard's schema (MIT), with its licence in the file.
SCHEMA_FILE = Path(__file__).with_name("matbench_discovery_card_schema.yml")
_SUBSETS = {"full_test_set": "full", "unique_prototypes": "unique", "most_stable_10k": "top"}
_COUNTS = frozenset({"TP", "FP", "TN", "FN", "missing_preds", "n_structures"})


@cache
def card_schema() -> dict[str, Any]:
    """The leaderboard's schema of model cards, of July 2026.

    Returns
    -------
    dict
        JSON schema, draft 7.
    """
    return dict(read_yaml(SCHEMA_FILE))


def check_card(card: Mapping[str, Any], source: str) -> None:
    """Refuse a card that the leaderboard would refuse.

    Parameters
    ----------
    card
        The card.
    source
        File from which a user can mend it, for the message.

    Raises
    ------
    InputError
        Fields are missing or wrong; the message names all of them.
    """
    missing, wrong = [], []
    validator = Draft7Validator(card_schema(), format_checker=FormatChecker())
    for fault in sorted(validator.iter_errors(card), key=lambda each: [str(part) for part in each.absolute_path]):
        place = [str(part) for part in fault.absolute_path]
        if fault.validator == "required":
            missing += [".".join((*place, name)) for name in fault.validator_value if name not in fault.instance]
        else:
            wrong.append(f"{'.'.join(place) or 'the card'}: {_innermost(fault).message}")
    authors = card.get("authors")
    if isinstance(authors, list) and authors and isinstance(authors[0], Mapping) and "email" not in authors[0]:
        missing.append("authors.0.email")
    if missing or wrong:
        parts = []
        if missing:
            parts.append(f"missing: {', '.join(dict.fromkeys(missing))}")
        if wrong:
            parts.append(f"wrong: {'; '.join(wrong)}")
        raise InputError(f"{source} does not make a card that the leaderboard takes; {'; '.join(parts)}")


def _innermost(fault: ValidationError) -> ValidationError:
    """The first alternative's fault, which says more than that no alternative holds."""
    return _innermost(fault.context[0]) if fault.context else fault


def plain_dates(value: Any) -> Any:
    """Values of a YAML file with dates as the text that JSON's schema wants.

    Parameters
    ----------
    value
        Mapping, list or scalar.

    Returns
    -------
    Any
        The same with dates as YYYY-MM-DD.
    """
    if isinstance(value, Mapping):
        return {str(key): plain_dates(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_dates(each) for each in value]
    return value.isoformat() if isinstance(value, date) else value


def file_reference(path: Path, root: Path) -> dict[str, Any]:
    """A file as the card names it.

    Parameters
    ----------
    path
        The file.
    root
        Folder to which its name refers.

    Returns
    -------
    dict
        "name", "size" in bytes and "md5".
    """
    with path.open("rb") as stream:
        md5 = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return {"name": path.relative_to(root).as_posix(), "size": path.stat().st_size, "md5": md5}


def discovery_section(
    metrics: Mapping[str, float | None], reason: str | None, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Section of the discovery task.

    Parameters
    ----------
    metrics
        Metrics under the names of the table of published results.
    reason
        Why the results are not those of the whole benchmark; None if they are.
    facts
        File, hardware and time.

    Returns
    -------
    dict
        The section; a subset with a metric that is not defined is left out.
    """
    wanted = card_schema()["definitions"]["DiscoveryMetricsSet"]["required"]
    section = _status(reason) | dict(facts)
    for subset, prefix in _SUBSETS.items():
        values = {name: metrics.get(f"{prefix}_{name}") for name in wanted}
        if None not in values.values():
            section[subset] = _rounded(values, 3)
    return section


def geometry_section(
    metrics: Mapping[str, float | None],
    reason: str | None,
    analyses: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Section of the geometry task.

    Parameters
    ----------
    metrics
        Metrics under the names of the table of published results.
    reason
        Why the results are not those of the whole benchmark; None if they are.
    analyses
        File of the symmetries by tolerance.
    facts
        File of the structures.

    Returns
    -------
    dict
        The section.
    """
    names = ("rmsd", "n_sym_ops_mae", "symmetry_decrease", "symmetry_match", "symmetry_increase", "n_structures")
    section = _status(reason) | dict(facts)
    for tolerance in TOLERANCES:
        values = {name: metrics.get(f"{name}_{tolerance}") for name in names}
        if None not in values.values():
            section[f"symprec={tolerance}"] = _rounded(values, 4) | {"analysis_file": dict(analyses[tolerance])}
    return section


def conductivity_section(
    metrics: Mapping[str, float | None], reason: str | None, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Section of the conductivity task, with the Greek keys of the cards.

    Parameters
    ----------
    metrics
        Metrics under the names of the table of published results.
    reason
        Why the results are not those of the whole benchmark; None if they are.
    facts
        Files, hardware and time.

    Returns
    -------
    dict
        The section.
    """
    names: Iterable[str] = card_schema()["definitions"]["KappaMetrics"]["required"]
    return _status(reason) | {"kappa_103": dict(facts) | _rounded({name: metrics.get(name) for name in names}, 4)}


def diatomics_section(metrics: Mapping[str, float | None], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Section of the diatomics task.

    Parameters
    ----------
    metrics
        Metrics under the names of the table of published results, with the digits of the cards.
    facts
        File, hardware, time and excluded pairs.

    Returns
    -------
    dict
        The section.
    """
    names = (*REFERENCE_FREE, *AGAINST_REFERENCE)
    values = {name: metrics.get(f"diatomics_{name}") for name in names}
    return dict(facts) | {name: value for name, value in values.items() if value is not None}


def md_section(metrics: Mapping[str, float | None], reason: str | None, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Section of the molecular dynamics task.

    Parameters
    ----------
    metrics
        Metrics under the names of the table of published results.
    reason
        Why the results are not those of the whole benchmark; None if they are.
    facts
        File and hardware.

    Returns
    -------
    dict
        The section; what is not known is left out.
    """
    values = {
        name: int(value) if name == "n_systems" else value
        for name in (*MD_METRICS, "run_time_sec", "n_systems")
        if (value := metrics.get(f"md_{name}")) is not None
    }
    return _status(reason) | dict(facts) | values


def _status(reason: str | None) -> dict[str, Any]:
    return {} if reason is None else {"status": "partial", "reason": reason}


def _rounded(values: Mapping[str, float | None], digits: int) -> dict[str, Any]:
    """Metrics with the digits of the cards, counts as whole numbers."""
    return {
        name: None if value is None else int(value) if name in _COUNTS else round(float(value), digits)
        for name, value in values.items()
    }
