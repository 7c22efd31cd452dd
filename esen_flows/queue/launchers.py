"""How jobs reach a machine: the templates of launchers/, filled in for a site.

`{{ name }}` in a template is replaced by a value. So is `{{ name? }}`, but a line whose optional value is not given is
left out. Nothing else is interpreted, so that a template reads as the file that it becomes.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from esen_flows.assets import asset_dir
from esen_flows.errors import InputError

# Files of a site's folder that are not written for the user: one is read in the folder, the other is printed.
_DOCUMENTATION, _NEXT = "README.md", "next.txt"
LOG_FOLDER = "log"  # queues write there, and lose the output of a job if the folder is missing
_PLACEHOLDER = re.compile(r"\{\{ (\w+)(\??) \}\}")
# Characters that mean nothing special to a shell, to YAML or to a queue.
_PLAIN = re.compile(r"[\w./:@%+,=-]+", re.ASCII)
_COUNT = re.compile(r"[1-9]\d{0,5}")
_WALLTIME = re.compile(r"(\d{1,3}):([0-5]\d):([0-5]\d)")


@dataclass(frozen=True)
class Value:
    """A value that a user gives for a site.

    Attributes
    ----------
    about
        What the value is, in a few words.
    pattern
        What a value has to match.
    example
        A value, for messages.
    """

    about: str
    pattern: re.Pattern[str]
    example: str


VALUES = {
    "partition": Value("partition or queue of the GPU nodes", _PLAIN, "gpu"),
    "cpu_partition": Value("partition or queue of nodes without GPUs; default: that of the GPU nodes", _PLAIN, "cpu"),
    "account": Value("account that pays; left out: the queue's default", _PLAIN, "chem"),
    "qos": Value("quality of service (SLURM)", _PLAIN, "normal"),
    "constraint": Value("features that nodes must have (SLURM)", _PLAIN, "a100"),
    "memory": Value("memory of a job (SLURM); left out: the queue's default", _PLAIN, "64G"),
    "gpus_per_node": Value("GPUs of a node", _COUNT, "4"),
    "cpus_per_gpu": Value("processor cores, and threads, for each GPU", _COUNT, "8"),
    "cpus_per_job": Value("cores of a job without GPUs; default: those of all GPUs of a node", _COUNT, "32"),
    "nodes": Value("nodes of one training; default: 2", _COUNT, "2"),
    "walltime": Value("time limit of a job, H:MM:SS", _WALLTIME, "4:00:00"),
    "warning_seconds": Value("seconds before its end when SLURM warns a job; default: 300", _COUNT, "300"),
    "uri_file": Value("file of mode 0600 with the database's mongodb:// URI", _PLAIN, "~/mongo_uri"),
    "database": Value("name of the database; left out: esen_flows", _PLAIN, "esen_flows"),
}
# Placeholders whose values follow from the others.
_DERIVED = frozenset({"site", "folder", "bin", "cpus_per_node", "devices"})


def list_sites() -> list[str]:
    """Names of the sites in launchers/.

    Returns
    -------
    list[str]
        Names, sorted.

    Examples
    --------
    >>> list_sites()
    ['pbs_gpu', 'slurm_gpu', 'workstation']
    """
    return sorted(path.parent.name for path in asset_dir("launchers").glob(f"*/{_NEXT}"))


def about(site: str) -> str:
    """What a site is for.

    Parameters
    ----------
    site
        One of `list_sites()`.

    Returns
    -------
    str
        First line of text in the site's README.
    """
    lines = (_folder(site) / _DOCUMENTATION).read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line and not line.startswith("#"))


def values_of(site: str) -> dict[str, bool]:
    """Values that a site's templates take.

    Parameters
    ----------
    site
        One of `list_sites()`.

    Returns
    -------
    dict[str, bool]
        Whether each value has to be given, by name and in the order of `VALUES`.
    """
    found: dict[str, bool] = {}
    for template in _templates(site):
        for name, optional in _names(template):
            required = not optional and name not in _defaults({})
            found[name] = found.get(name, False) or required
    if "cpus_per_node" in found or "devices" in found:
        found["gpus_per_node"] = True
    return {name: found[name] for name in VALUES if name in found}


def fill(site: str, values: Mapping[str, str], folder: Path, *, force: bool = False) -> tuple[list[Path], str]:
    """Write a site's templates, filled in, into a folder.

    Parameters
    ----------
    site
        One of `list_sites()`.
    values
        Values by name, see `VALUES`.
    folder
        Folder, which is made if it is missing. The files name it, so it has to stay where it is.
    force
        Whether to replace files that are there.

    Returns
    -------
    tuple[list[Path], str]
        The files, sorted, and what to type next, for people.

    Raises
    ------
    InputError
        A value is missing, unknown at this site or malformed; a template names an unknown value; or a file exists.
        Then nothing is written.
    """
    folder = folder.expanduser().absolute()
    known = _checked(site, values) | {"site": site, "folder": str(folder), "bin": str(Path(sys.prefix) / "bin")}
    for name in ("folder", "bin"):
        if not _PLAIN.fullmatch(known[name]):
            raise InputError(
                f"the path {known[name]} stands in scripts and may hold letters, digits and . _ / : @ % + , = - only; "
                + ("give another --output" if name == "folder" else "install esen_flows elsewhere")
            )
    texts = {template.name: _filled(template, known) for template in _templates(site)}
    next_commands = texts.pop(_NEXT)
    files = {folder / name: text for name, text in sorted(texts.items())}
    if (present := [str(path) for path in files if path.exists()]) and not force:
        raise InputError(f"{', '.join(present)}: exists already; give another --output, or --force to replace")
    (folder / LOG_FOLDER).mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    return list(files), next_commands


def flag(name: str) -> str:
    """Option of the command line for a value.

    Parameters
    ----------
    name
        Name of the value, one of `VALUES`.

    Returns
    -------
    str
        Option such as --cpus-per-gpu.
    """
    return f"--{name.replace('_', '-')}"


def _folder(site: str) -> Path:
    if site not in list_sites():
        raise InputError(f"no launcher for a site {site!r}; choose one of {', '.join(list_sites())}")
    return asset_dir("launchers") / site


def _templates(site: str) -> list[Path]:
    return sorted(path for path in _folder(site).iterdir() if path.is_file() and path.name != _DOCUMENTATION)


def _names(template: Path) -> Iterator[tuple[str, bool]]:
    """The placeholders of a template, and whether each is optional."""
    for number, line in enumerate(template.read_text(encoding="utf-8").splitlines(), start=1):
        if "{{" in _PLACEHOLDER.sub("", line):
            raise InputError(f"{template}:{number}: a placeholder is written {{{{ name }}}}; got {line.strip()}")
        for match in _PLACEHOLDER.finditer(line):
            if match[1] not in VALUES and match[1] not in _DERIVED:
                known = ", ".join(sorted({*VALUES, *_DERIVED}))
                raise InputError(f"{template}:{number}: no placeholder {match[1]!r}; there are {known}")
            yield match[1], bool(match[2])


def _checked(site: str, values: Mapping[str, str]) -> dict[str, str]:
    """The values with defaults and what follows from them.

    Raises
    ------
    InputError
        Values are missing, unknown or malformed; the message lists every fault.
    """
    taken = values_of(site)
    faults = [f"{flag(name)}: {site} takes no such value" for name in values if name not in taken]
    faults += [
        f"{flag(name)} is missing: {VALUES[name].about}, such as {VALUES[name].example}"
        for name, required in taken.items()
        if required and name not in values
    ]
    for name, value in values.items():
        if name in taken and not VALUES[name].pattern.fullmatch(value):
            faults.append(f"{flag(name)}: {VALUES[name].about}, such as {VALUES[name].example}; got {value!r}")
    if not faults:
        known = {**_defaults(values), **values}
        faults += _joint_faults(known, "warning_seconds" in taken)
    if faults:
        raise InputError("\n".join([f"launcher for {site}:", *faults]))
    return known


def _defaults(values: Mapping[str, str]) -> dict[str, str]:
    """Values that need not be given: they follow from other values, or are constants."""
    gpus, cpus = int(values.get("gpus_per_node", 1)), int(values.get("cpus_per_gpu", 1))
    return {
        "cpu_partition": values.get("partition", ""),
        "cpus_per_node": str(gpus * cpus),
        "cpus_per_job": str(gpus * cpus),
        "devices": ",".join(map(str, range(gpus))),
        "nodes": "2",
        "warning_seconds": "300",
    }


def _joint_faults(known: dict[str, str], warned: bool) -> Iterator[str]:
    """Faults of values that are well-formed; the path of the URI file becomes absolute."""
    if "uri_file" in known:
        file = Path(known["uri_file"]).expanduser().absolute()
        known["uri_file"] = str(file)
        if not file.is_file():
            yield f"--uri-file: no such file: {file}; write the mongodb:// URI into it, then: chmod 600 {file}"
    match = _WALLTIME.fullmatch(known.get("walltime", ""))
    if warned and match is not None:
        hours, minutes, seconds = map(int, match.groups())
        if 2 * int(known["warning_seconds"]) > 3600 * hours + 60 * minutes + seconds:
            yield (
                f"--warning-seconds: a job of {known['walltime']} would be warned {known['warning_seconds']} s before "
                "its end, which leaves too little time to work; give half of the walltime or less"
            )


def _filled(template: Path, known: Mapping[str, str]) -> str:
    """Text of a template with values; lines whose value was not given are left out: `_checked` knows it is optional."""
    return "".join(
        _PLACEHOLDER.sub(lambda match: known[match[1]], line)
        for line in template.read_text(encoding="utf-8").splitlines(keepends=True)
        if all(name in known for name, _ in _PLACEHOLDER.findall(line))
    )
