"""Whether the structure of a result is like those that its force field was trained on, for the result's summary."""

from collections.abc import Iterable, Mapping
from typing import Any

from ase import Atoms

from esen_flows.forcefield.contract import ForceField
from esen_flows.makers.compute import Summary
from esen_flows.schemas.documents import Document, RelaxOutput, ResultDocument
from esen_flows.schemas.domain import chemical_system, domain_of, trained_systems
from esen_flows.schemas.requests import ResultRequest
from esen_flows.store.results import Store

_FIELDS = ("domain", "extrapolation", "extrapolation_limit")


def measured_domain(force_field: ForceField, location: str | None, start: Atoms, output: Document) -> Summary:
    """The verdict by a calibrated force field; one pass of the network without derivatives.

    Parameters
    ----------
    force_field
        The force field.
    location
        Name of its card, or path of its checkpoint.
    start
        The structure from which the step started.
    output
        Output of the step; of a relaxation, its structure counts, because a start may be strained.

    Returns
    -------
    Summary
        domain, extrapolation and extrapolation_limit; empty for a force field that is not calibrated.

    Raises
    ------
    StructureError
        The structure cannot be evaluated.
    """
    if (calibration := force_field.calibration) is None:
        return {}
    from esen_flows.forcefield.extrapolation import extrapolations

    atoms = output.structure.to_atoms() if isinstance(output, RelaxOutput) else start
    (value,) = extrapolations(force_field, [atoms])
    known = trained_systems(location)
    chemsys = chemical_system(atoms.get_chemical_symbols())
    verdict = domain_of(chemsys, calibration.chemical_systems if known is None else known, value <= calibration.limit)
    return dict(zip(_FIELDS, (verdict, value, calibration.limit), strict=True))


def inherited_domain(store: Store, request: ResultRequest) -> Summary:
    """The verdict of a step without force calls: that of the result with the largest extrapolation that it builds on.

    Parameters
    ----------
    store
        Store of the results.
    request
        Request of the step.

    Returns
    -------
    Summary
        domain, extrapolation and extrapolation_limit; empty if nothing was measured for these results.
    """
    keys = request.parents.values() or (request.parent_key,)
    return _worst(document for key in keys if (document := store.get(key, load_arrays=False)) is not None)


def _worst(documents: Iterable[ResultDocument]) -> Summary:
    measured = [document.summary for document in documents if document.summary.get(_FIELDS[1]) is not None]
    if not measured:
        return {}
    return _part(max(measured, key=lambda summary: summary[_FIELDS[1]] / summary[_FIELDS[2]]))


def _part(summary: Mapping[str, Any]) -> Summary:
    return {name: summary[name] for name in _FIELDS}
