"""Campaign specifications (workflows/<name>/spec.yaml): reading them, with a message for every fault and its line."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from esen_flows.assets import asset_dir
from esen_flows.campaigns.located_yaml import LocatedYaml, Location, read_located
from esen_flows.campaigns.sources import published_files
from esen_flows.errors import InputError, ModelError
from esen_flows.physics.conservation.systems import check_named_systems
from esen_flows.schemas.campaign import SETTING, CampaignSpec, protocol_for
from esen_flows.schemas.card import ModelReference, resolve_model
from esen_flows.schemas.lattice_versions import TRANSPORT_BACKEND
from esen_flows.schemas.property_lookup import GENERAL, entry_of, is_exact, named_protocol, require_forces
from esen_flows.schemas.protocol_fields import FieldError, field_names, with_values
from esen_flows.schemas.structure_source import StructureQuery, StructureSource
from esen_flows.structures.files import split_index

FILE_NAME = "spec.yaml"
Faults = Iterator[tuple[Location, str]]
# The parts of a specification that have fields of their own.
_PARTS: dict[Location, type[BaseModel]] = {
    (): CampaignSpec,
    ("structures",): StructureSource,
    ("structures", "query"): StructureQuery,
}
# Stand-ins for fields with faults, so that the other fields are checked all the same.
_PLACEHOLDERS = {"name": "x", "property": "relax", "structures": {"query": {}}, "models": ["x"]}
_MOST_SHOWN = 80  # characters of a wrong value
_PREFIX = 4  # first letters that have to agree for a guess at what was meant


def find_spec(name: str | Path) -> Path:
    """The file of a specification.

    Parameters
    ----------
    name
        Path of a file, of a folder with a spec.yaml, or a name in workflows/.

    Returns
    -------
    Path
        Path of the file.

    Raises
    ------
    InputError
        There is no such file; the message lists the names in workflows/.
    """
    path = Path(name)
    for candidate in (path, path / FILE_NAME, asset_dir("workflows") / path / FILE_NAME):
        if candidate.is_file():
            return candidate
    known = ", ".join(sorted(found.parent.name for found in asset_dir("workflows").glob(f"*/{FILE_NAME}")))
    raise InputError(f"no campaign specification {name}; give the path of a YAML file, or one of {known}")


def read_spec(name: str | Path, *, anywhere: bool = False) -> CampaignSpec:
    """Read and check a specification; relative paths in it are relative to its file.

    Parameters
    ----------
    name
        Path or name, as `find_spec` takes it.
    anywhere
        Whether to skip the checks that depend on this machine: whether force fields and files of structures are there.

    Returns
    -------
    CampaignSpec
        The specification.

    Raises
    ------
    InputError
        The specification has faults. Each has a line: `FILE:LINE: field: what is wrong, what it got, what to do`.

    Examples
    --------
    >>> read_spec("mdr_phonons", anywhere=True).property
    'phonon'
    """
    file = read_located(find_spec(name))
    wrong, faults = set[str](), list[tuple[Location, str]]()
    try:
        CampaignSpec.model_validate(file.value)
    except ValidationError as error:
        for location, message in _faults_of_schema(file, error):
            # Only these two fields depend on others.
            wrong |= {str(location[0])} if location else {"benchmark", "energy_corrections"}
            faults.append((location, message))
    good = {key: value for key, value in file.value.items() if key in CampaignSpec.model_fields and key not in wrong}
    if "property" in good and "lattice_backend" in entry_of(good["property"]).versions:
        good.setdefault("lattice_backend", TRANSPORT_BACKEND)
    if "property" in good and "settings" not in wrong and good.get("protocol") in (None, GENERAL):
        good["settings"] = _setting_of(good["property"]) | good.get("settings", {})
    if "property" in good and entry_of(good["property"]).subject == "model":
        good.setdefault("structures", None)
    # These three are checked against other fields, which placeholders may replace here.
    if "property" not in good and good.get("structures") is None:
        good.pop("structures", None)
    if wrong & {"benchmark", "energy_corrections"} or not {"property", "structures"} <= good.keys():
        good.pop("benchmark", None)
        good.pop("energy_corrections", None)
    try:
        spec = CampaignSpec.model_validate(_PLACEHOLDERS | good)
    except ValidationError as error:  # of fields that contradict each other, which a wrong field had hidden
        faults += _faults_of_schema(file, error)
        spec = CampaignSpec.model_validate(
            _PLACEHOLDERS | {name: good[name] for name in good if name not in ("benchmark", "energy_corrections")}
        )
    spec = _with_absolute_paths(spec, file.path.resolve().parent)
    if "property" in good:
        faults += _faults_of_protocol(spec)
    if not anywhere:
        if "structures" in good:
            faults += _faults_of_structures(spec)
        if "models" in good:
            faults += _faults_of_models(spec, complete=not wrong)
    if faults:
        faults.sort(key=lambda fault: file.line(fault[0]))
        raise InputError("\n".join(file.fault(location, message) for location, message in faults))
    return spec


def _setting_of(kind: str) -> dict[str, str]:
    """The setting of the general protocol, as `settings` of a specification; empty without displaced supercells."""
    general = named_protocol(kind, GENERAL, {})
    return {SETTING: general.model_dump()["displacement"]["setting"]} if SETTING in field_names(general) else {}


def check_requirements(spec: CampaignSpec, models: Sequence[ModelReference]) -> None:
    """Refuse force fields that lack what the property and `require` of a specification ask for.

    Whether they know all elements (`covers_elements`) is checked structure by structure, when a campaign is planned.

    Parameters
    ----------
    spec
        Specification.
    models
        Its force fields.

    Raises
    ------
    InputError
        A force field does not fit; the message lists every reason.
    """
    faults = [f"{'.'.join(map(str, location))}: {message}" for location, message in _unmet(spec, models)]
    if faults:
        raise InputError("\n".join(faults))


def _unmet(spec: CampaignSpec, models: Iterable[ModelReference]) -> Faults:
    protocol = with_values(named_protocol(spec.property, spec.protocol, {}), spec.settings.items())
    exact = is_exact(protocol)
    for model in models:
        try:
            check_named_systems(protocol, model)
        except InputError as error:
            yield ("settings",), str(error)
        if model.dtype not in (None, spec.dtype):
            yield (
                ("dtype",),
                f"{model.label} computes in {model.dtype} only, got {spec.dtype}; write dtype: {model.dtype}",
            )
        try:
            require_forces(model, protocol, spec.property)
            if "conservative" in spec.require:
                model.require_conservative("`require: conservative`")
            if exact:
                model.require_differentiable("force_constants=autodiff")
            elif "differentiable" in spec.require:
                model.require_differentiable("`require: differentiable`")
        except ModelError as error:
            yield ("models",), str(error)
        if "o3" in spec.require and model.equivariance != "O3":
            yield (
                ("require",),
                f"o3: {model.label} declares {model.equivariance}, so that mirror images differ; leave o3 out and "
                "average mirror images (parity: average), or choose another force field",
            )
        if "covers_elements" in spec.require and model.elements is None:
            yield ("require",), f"covers_elements: {model.label} does not say which elements it was trained on"
        if "inside_domain" in spec.require and model.chemical_systems is None:
            yield (
                ("require",),
                f"inside_domain: {model.label} does not say which sets of elements its training structures have "
                "(chemical_systems of its card); leave inside_domain out, or choose another force field",
            )


def _faults_of_schema(file: LocatedYaml, error: ValidationError) -> Faults:
    for fault in error.errors():
        location = tuple(fault["loc"])
        if fault["type"] == "missing":
            yield location, f"is missing; write {location[-1]}: ..."
        elif fault["type"] == "extra_forbidden":
            yield location, _unknown(str(location[-1]), list(_PARTS[location[:-1]].model_fields))
        elif fault["type"] == "string_pattern_mismatch" and location == ("name",):
            yield location, f"1 to 63 letters, digits, _ . and -, a letter or digit first; got {fault['input']!r}"
        else:
            message = str(fault["msg"]).removeprefix("Value error, ")
            got = "" if message != fault["msg"] else f", got {str(fault['input'])[:_MOST_SHOWN]!r}"
            yield file.written(location), f"{message[:1].lower()}{message[1:]}{got}"


def _faults_of_protocol(spec: CampaignSpec) -> Faults:
    try:
        base = named_protocol(spec.property, spec.protocol, {})
    except InputError as error:
        yield ("protocol",), str(error)
        return
    names = field_names(base)
    unknown = [name for name in spec.settings if name not in names]
    for name in unknown:
        yield ("settings", name), _unknown(name, names)
    try:
        with_values(base, ((name, value) for name, value in spec.settings.items() if name not in unknown))
    except FieldError as error:
        for setting, message in error.faults:
            yield ("settings",) if setting is None else ("settings", setting), message
        return
    if not unknown and not spec.takes_own_settings:
        try:
            protocol_for(spec, {})
        except InputError as error:
            yield ("settings",), str(error)


def _faults_of_structures(spec: CampaignSpec) -> Faults:
    source = spec.structures
    if source is None:
        return
    for number, name in enumerate(source.file):
        file, _ = split_index(Path(name))
        if not file.is_file():
            yield ("structures", "file", number), f"no such file: {file}; paths are relative to the specification"
    for number, name in enumerate(source.dataset):
        if not Path(name).exists():
            yield ("structures", "dataset", number), f"nothing at {name}; paths are relative to the specification"
    if source.published is not None:
        try:
            published_files(source.published, source.folder)
        except InputError as error:
            yield ("structures", "published"), str(error)


def _faults_of_models(spec: CampaignSpec, *, complete: bool) -> Faults:
    found = []
    for number, name in enumerate(spec.models):
        try:
            found.append(resolve_model(name))
        except ModelError as error:
            yield ("models", number), str(error)
    if complete and not list(_faults_of_protocol(spec)):
        yield from _unmet(spec, found)


def _unknown(name: str, valid: Sequence[str]) -> str:
    """Message about a field that does not exist, with the nearest one, which may be inside of another."""
    last = {field.rpartition(".")[2]: field for field in reversed(valid)}
    near = get_close_matches(name, valid, n=1) or [last[close] for close in get_close_matches(name, last, n=1)]
    near = near or [field for field in valid if field.startswith(name[:_PREFIX])]  # fmax for fmax_ev_per_angstrom
    hint = f"did you mean {near[0]}? " if near else ""
    return f"no such field; {hint}there are {', '.join(valid)}"


def _with_absolute_paths(spec: CampaignSpec, folder: Path) -> CampaignSpec:
    models = tuple(str(folder / Path(name).expanduser()) if _is_path(name) else name for name in spec.models)
    source = spec.structures
    if source is not None:
        changes: Mapping[str, Any] = {
            "file": tuple(str(folder / Path(name).expanduser()) for name in source.file),
            "dataset": tuple(str(folder / Path(name).expanduser()) for name in source.dataset),
            "folder": None if source.folder is None else str(folder / Path(source.folder).expanduser()),
        }
        source = source.model_copy(update=changes)
    return spec.model_copy(update={"structures": source, "models": models})


def _is_path(model: str) -> bool:
    return model.endswith(".safetensors") or "/" in model
