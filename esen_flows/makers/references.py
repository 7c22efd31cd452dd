"""Outputs of other jobs as arguments of our Makers: a job that is replaced by the keyed flow when it runs.

Keys are known when the structure and the force field are. So a Maker that is given a reference to either makes one job,
whose Maker it is, and which makes the keyed jobs in its place as soon as the reference has a value.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from jobflow import CURRENT_JOB, Flow, Job, OutputReference, Response
from jobflow.core.job import store_inputs

from esen_flows.schemas.properties import PROPERTIES
from esen_flows.structures.conversion import atoms_from_json, atoms_to_json
from esen_flows.structures.inputs import given_structures

# In a job's manager_config: its category is that of its kind, and jobs that it makes when it runs get that of theirs.
CATEGORY_OF_KIND = "category_of_kind"
_ATOMS = "esen_flows_atoms"
_NAMES = ("group", "material")  # of a structure to label, in its `info`


def is_reference(value: Any) -> bool:
    """Whether a value stands for the output of a job that has not run yet.

    Parameters
    ----------
    value
        Any argument of a Maker.

    Returns
    -------
    bool
        True for an output reference, for a job or flow (which stand for their outputs, as in jobflow's `@flow`), and
        for a list with one of them.
    """
    if isinstance(value, list | tuple):
        return any(map(is_reference, value))
    return isinstance(value, OutputReference | Job | Flow)


def carried(structures: Any) -> Any:
    """Structures and references to structures as a job carries them until it runs.

    Parameters
    ----------
    structures
        A structure or a reference, or a list of them.

    Returns
    -------
    Any
        References as they are, structures as plain values.
    """
    if isinstance(structures, Job | Flow):
        return structures.output
    if isinstance(structures, OutputReference):
        return structures
    if isinstance(structures, list | tuple) and is_reference(structures):
        return [item for one in structures for item in _several(carried(one))]
    found, is_one = given_structures(structures)
    values = [
        {_ATOMS: atoms_to_json(atoms), **{n: atoms.info[n] for n in _NAMES if n in atoms.info}} for atoms in found
    ]
    return values[0] if is_one else values


def delivered(structures: Any) -> Any:
    """Structures that a job has carried, with the values of references.

    Parameters
    ----------
    structures
        Result of `carried`, after jobflow has resolved the references.

    Returns
    -------
    Any
        The structures, for a Maker's `make`.
    """
    if isinstance(structures, list | tuple):
        return [delivered(one) for one in structures]
    if isinstance(structures, dict) and _ATOMS in structures:
        atoms = atoms_from_json(structures[_ATOMS])
        atoms.info |= {name: structures[name] for name in _NAMES if name in structures}
        return atoms
    return structures


def in_place_of_this_job(work: Job | Flow) -> Response[Any]:
    """Have the job that runs replaced by a job or flow, whose jobs get the category of their kind.

    The last job takes the identifier of the job that runs, so that references to it mean the new output. jobflow would
    hand on one category to all of them, and a worker for another category would never take them.

    Parameters
    ----------
    work
        The new job or flow.

    Returns
    -------
    Response[Any]
        What the job that runs returns.
    """
    current = CURRENT_JOB.job
    flow = work if isinstance(work, Flow) else Flow([work], output=work.output, name=work.name)
    last = _last(flow)
    flow.output = None  # or jobflow would add a job that copies the output
    last.set_uuid(current.uuid)
    last.index = current.index + 1
    last.metadata = {name: value for name, value in current.metadata.items() if name != "fw_id"} | last.metadata
    _hand_on_config(current, flow)
    return Response(replace=flow)


def _hand_on_config(current: Job, flow: Flow) -> None:
    """Give the jobs of a flow the settings that jobflow hands on, except that the category is that of their kind."""
    own = current.config
    passed = dict(own.response_manager_config or (own.manager_config if own.pass_manager_config else {}))
    by_kind = bool(passed.pop(CATEGORY_OF_KIND, False))
    if by_kind:
        passed.pop("_category", None)
    for each, _ in flow.iterflow():
        each.config.manager_config = {**each.config.manager_config, **deepcopy(passed)}
    for update in current.config_updates:
        flow.update_config(**update, dynamic=True)
    for each, _ in flow.iterflow():
        kind = each.metadata.get("kind")
        if by_kind and kind in PROPERTIES:
            # Not in place: jobs share the dictionary of an update.
            each.config.manager_config = {"_category": PROPERTIES[kind].category, **each.config.manager_config}
    # jobflow would do it once more, with one category for all.
    current.config_updates, own.response_manager_config, own.pass_manager_config = [], {}, False


def _last(flow: Flow) -> Job:
    """The job whose output is that of the flow; for several outputs, a new job that collects them."""
    output = flow.output
    if isinstance(output, OutputReference) and not output.attributes:
        for each, _ in flow.iterflow():
            if each.uuid == output.uuid:
                return each
    last = store_inputs(output)
    last.name = flow.name
    flow.add_jobs(last)
    return last


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]
