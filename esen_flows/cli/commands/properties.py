"""The commands that compute properties, such as `esen-flows relax FILE`: the stored result if there is one.

Reading a stored result needs neither torch nor jobflow nor phonopy: the key of the last step follows from the file, the
model card and the protocol.
"""

import inspect
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from esen_flows.cli import options
from esen_flows.cli.output.artefacts import artefact_paths, write_artefacts
from esen_flows.cli.output.json_output import JsonOption, print_json
from esen_flows.cli.output.report import print_report, result_content
from esen_flows.cli.property_request import PropertyRequest, build_request, model_request
from esen_flows.cli.run_or_load import build_flow, interruptible, missing_kinds, run_or_load
from esen_flows.cli.store import open_store
from esen_flows.cli.usage import UsageError, check_folder, refuse_ignored
from esen_flows.cli.work_ahead import describe_work
from esen_flows.errors import InputError
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.force_symmetry import ForceSymmetry
from esen_flows.schemas.lattice_versions import TRANSPORT_BACKEND
from esen_flows.schemas.properties import PROPERTIES, Kind
from esen_flows.schemas.property_lookup import GENERAL
from esen_flows.schemas.protocol_fields import field_names
from esen_flows.units import FrequencyUnit

# The fields that `--symmetry` sets, by the first field of their path; other steps take over the value.
SYMMETRY_FIELDS = {
    "force_symmetry": "force_symmetry",
    "displacement": "displacement.force_symmetry",
    "measurements": "measurements.force_symmetry",
}
DRAWN_LATER = "the same command without --submit draws the results once they are stored"


def _offered(kind: Kind) -> dict[str, bool]:
    """Whether the options that not all properties have are offered for one."""
    entry = PROPERTIES[kind]
    return {
        "file": entry.subject == "structure",
        "protocol": bool(entry.published),
        "born": "born" in entry.protocol.model_fields,
        "lattice_backend": "lattice_backend" in entry.versions,
        "unit": any(file.frequencies for file in entry.files),
        "yes": "displacement" in entry.protocol.model_fields,
        "forces": bool(_forces_fields(kind)),
        "symmetry": not SYMMETRY_FIELDS.keys().isdisjoint(entry.protocol.model_fields),
        "quick": "quick" in entry.published,
        "full": "full" in entry.published,
    }


def _forces_fields(kind: Kind) -> set[str]:
    """The field of the protocol that `--forces` sets, if there is one; steps before this one take over its value."""
    return {"forces", "displacement.forces"} & set(field_names(PROPERTIES[kind].protocol()))


def property_command(kind: Kind) -> Callable[..., None]:
    """The command that computes a property; typer reads its options from the signature that all properties share.

    Parameters
    ----------
    kind
        The property.

    Returns
    -------
    Callable[..., None]
        The command.
    """
    of_model = PROPERTIES[kind].subject == "model"

    def command(
        file: options.FileArgument = Path(),
        model: options.ModelOption = options.DEFAULT_MODEL,
        set_: options.SetOption = None,
        dtype: options.DtypeOption = None,
        device: options.DeviceOption = "cpu",
        compile: options.CompileOption = False,
        tf32: options.Tf32Option = False,
        output: options.OutputOption = None,
        submit: options.SubmitOption = False,
        protocol: options.ProtocolOption = "general",
        forces: options.ForcesOption = None,
        symmetry: options.SymmetryOption = None,
        born: options.BornOption = None,
        lattice_backend: options.LatticeBackendOption = TRANSPORT_BACKEND,
        yes: options.YesOption = False,
        quick: options.QuickOption = False,
        full: options.FullOption = False,
        unit: options.UnitOption = "THz",
        as_json: JsonOption = False,
    ) -> None:
        protocol = _chosen(protocol, quick=quick, full=full)
        set_ = [*(f"{field}={forces}" for field in _forces_fields(kind) if forces is not None), *(set_ or [])]
        set_ = [*_symmetry(kind, symmetry), *set_]
        if of_model:
            request = model_request(
                kind, model, set_, dtype, device, compile=compile, tf32=tf32, protocol_name=protocol
            )
        else:
            request = build_request(
                kind, file, model, set_, dtype, device,
                compile=compile, tf32=tf32, protocol_name=protocol, born=born, lattice_backend=lattice_backend,
            )  # fmt: skip
        if submit:
            from esen_flows.cli.submission import submit_work

            refuse_ignored({"--output": output, "--json": as_json}, "with --submit", DRAWN_LATER)
            store = open_store()
            stored = [step.key for step in request.steps if store.get(step.key, load_arrays=False) is not None]
            describe_work(request, missing_kinds(request, stored), store, yes=yes)
            submit_work(build_flow(request), store)
        else:
            check_folder(output or Path("results"))
            with interruptible():
                _report(request, output, yes, unit, as_json)

    command.__name__, command.__doc__ = PROPERTIES[kind].command, PROPERTIES[kind].help
    # Options that have no effect on this property are not offered.
    signature, special = inspect.signature(command), _offered(kind)
    offered = [option for option in signature.parameters.values() if special.get(option.name, True)]
    # The subject is a positional argument without a default.
    annotation = options.ModelArgument if of_model else options.FileArgument
    offered[0] = offered[0].replace(default=inspect.Parameter.empty, annotation=annotation)
    command.__signature__ = signature.replace(parameters=offered)  # type: ignore[attr-defined]
    return command


def _symmetry(kind: Kind, text: str | None) -> list[str]:
    """The field of the protocol that `--symmetry` sets, after a look at its text."""
    if text is None:
        return []
    try:
        ForceSymmetry.model_validate(text)
    except ValidationError as error:
        fault = error.errors()[0]
        raise UsageError(f"--symmetry {text}: {str(fault['msg']).removeprefix('Value error, ')}") from error
    (field,) = SYMMETRY_FIELDS.keys() & PROPERTIES[kind].protocol.model_fields.keys()
    return [f"{SYMMETRY_FIELDS[field]}={text}"]


def _chosen(protocol: str, **short: bool) -> str:
    """The protocol that was named, by its name or by an option of its own."""
    named = [name for name, given in short.items() if given]
    if len(named) > 1 or (named and protocol not in (GENERAL, *named)):
        raise UsageError(f"--{' and --'.join(named)} and --protocol {protocol} name protocols; give one of them")
    return named[0] if named else protocol


def _report(request: PropertyRequest, output: Path | None, yes: bool, unit: FrequencyUnit, as_json: bool) -> None:
    """Print the result of a request and write its files, after computing it if it is not stored."""
    answer = run_or_load(request, yes=yes)
    documents = answer.documents
    result = documents[-1]
    if as_json:
        files = [] if output is None else _files(documents, output, unit)
        complete = open_store().get(result.key) or result  # with its large arrays
        print_json({**result_content([*documents[:-1], complete], answer.stored), "files": files})
        return
    folder = output or Path("results") / f"{result.subject_name}-{result.key[:8]}"
    try:
        files = _files(documents, folder, unit)
    except OSError as error:
        print_report(documents, stored=answer.stored, unit=unit)
        raise InputError(
            f"the result above is stored, but files cannot be written to {folder} ({error.strerror or error}); "
            "make room, or give the same command another --output"
        ) from error
    print_report(documents, files, answer.stored, unit)


def _files(documents: list[ResultDocument], folder: Path, unit: FrequencyUnit) -> list[Path]:
    """Figures and structures of the last step; those that are missing are made now."""
    result = documents[-1]
    paths = artefact_paths(result, folder, unit)
    if not all(path.exists() for path in paths):
        complete = open_store().get(result.key)  # with its large arrays
        if complete is not None:
            write_artefacts(complete, folder, documents[:-1], unit)
    return paths
