"""How jobs reach a machine: the templates of launchers/, filled in for a site.

`{{ name }}` in a template is replaced by a value, `{{ name? }}` as well, but a line whose optional value was not given
is left out. Nothing else is interpreted, so that a template reads as the file that it becomes.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from esen_flows.assets import asset_dir
from esen_flows.errors import InputError

# The files of a site's folder that are not for the user's: one is read there, one is printed.
_DOCUMENTATION, _NEXT = "README.md", "next.txt"
LOG_FOLDER = "log"  # queues write there, and lose a job's output where it is missing
_PLACEHOLDER = re.compile(r"\{\{ (\w+)(\??) \}\}")
# Of no meaning to a shell, to YAML or to a queue.
_PLAIN = re.compile(r"[\w./:@%+,=-]+", re.ASCII)
_COUNT = re.compile(r"[1-9]\d{0,5}")
_WALLTIME = re.compile(r"(\d{1,3}):([0-5]\d):([0-5]\d)")


@dataclass(frozen=True)
class Value:
    """What a user says of a site.

    Attributes
    ----------
    about
        in a few words.
    pattern
        what a value has to be.
    example
        of one, for messages.
    """

    about: str
    pattern: re.Pattern[str]
    example: str


VALUES = {
    "partition": Value("partition or queue of the GPU nodes", _PLAIN, "gpu"),
    "cpu_partition": Value("partition or queue of nodes without GPUs; default: that of the GPU nodes", _PLAIN, "cpu"),
    "account": Value("who pays; left out: the queue's default", _PLAIN, "chem"),
    "qos": Value("quality of service (SLURM)", _PLAIN, "normal"),
    "constraint": Value("features that nodes must have (SLURM)", _PLAIN, "a100"),
    "memory": Value("memory of a job (SLURM); left out: the queue's default", _PLAIN, "64G"),
    "gpus_per_node": Value("GPUs of a node", _COUNT, "4"),
    "cpus_per_gpu": Value("processor cores, and threads, for each GPU", _COUNT, "8"),
    "cpus_per_job": Value("cores of a job without GPUs; default: those of all GPUs of a node", _COUNT, "32"),
    "nodes": Value("nodes of one training; default: 2", _COUNT, "2"),
    "walltime": Value("how long a job may take, H:MM:SS", _WALLTIME, "4:00:00"),
    "warning_seconds": Value("how long before its end SLURM warns a job; default: 300", _COUNT, "300"),
    "uri_file": Value("file of mode 0600 with the database's mongodb:// URI", _PLAIN, "~/mongo_uri"),
    "database": Value("name of the database; left out: esen_flows", _PLAIN, "esen_flows"),
}
# What follows from the others.
_DERIVED = frozenset({"site", "folder", "bin", "cpus_per_node", "devices"})


@dataclass(frozen=True)
class Written:
    """A site's files.

    Attributes
    ----------
    files
        their paths, sorted.
    next_commands
        what to type next, in words for people.
    """

    files: tuple[Path, ...]
    next_commands: str


def list_sites() -> list[str]:
    """Names of the folders of launchers/ that `fill` takes."""
    return sorted(path.parent.name for path in asset_dir("launchers").glob(f"*/{_NEXT}"))


def about(site: str) -> str:
    """What a site is for: the first sentence of its README."""
    lines = (_folder(site) / _DOCUMENTATION).read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line and not line.startswith("#"))


def values_of(site: str) -> dict[str, bool]:
    """The values that a site's templates take, and whether each has to be given."""
    found: dict[str, bool] = {}
    for template in _templates(site):
        for name, optional in _names(template):
            required = not optional and name not in _defaults({})
            found[name] = found.get(name, False) or required
    if "cpus_per_node" in found or "devices" in found:
        found["gpus_per_node"] = True
    return {name: found[name] for name in VALUES if name in found}


def fill(site: str, values: Mapping[str, str], folder: Path, *, force: bool = False) -> Written:
    """Write a site's templates, filled in, into a folder.

    Parameters
    ----------
    site
        one of `list_sites()`.
    values
        by name, see `VALUES`.
    folder
        made if need be; it is named in the files, so it has to stay where it is.
    force
        replace files that are there.

    Raises
    ------
    InputError
        a value is missing, unknown at this site or not as it has to be; a template names what does not exist;
        a file exists. Then nothing is written.
    """
    folder = folder.expanduser().absolute()
    known = _checked(site, values) | {"site": site, "folder": str(folder), "bin": str(Path(sys.prefix) / "bin")}
    for name in ("folder", "bin"):
        if not _PLAIN.fullmatch(known[name]):
            raise InputError(
                f"{known[name]} would stand in scripts: letters, digits and . _ / : @ % + , = - only; "
                + ("give another --output" if name == "folder" else "install esen_flows elsewhere")
            )
    texts = {template.name: _filled(template, known) for template in _templates(site)}
    next_commands = texts.pop(_NEXT)
    files = {folder / name: text for name, text in sorted(texts.items())}
    if (present := [str(path) for path in files if path.exists()]) and not force:
        raise InputError(f"{', '.join(present)}: there already; give another --output, or --force to replace")
    (folder / LOG_FOLDER).mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    return Written(tuple(files), next_commands)


def flag(name: str) -> str:
    """How the command line calls a value."""
    return f"--{name.replace('_', '-')}"


def _folder(site: str) -> Path:
    if site not in list_sites():
        raise InputError(f"no launcher for a site {site!r}; there are {', '.join(list_sites())}")
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
        with every fault.
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
        faults += _together(known, "warning_seconds" in taken)
    if faults:
        raise InputError("\n".join([f"launcher for {site}:", *faults]))
    return known


def _defaults(values: Mapping[str, str]) -> dict[str, str]:
    """What is not given: it follows from other values, or is always the same."""
    gpus, cpus = int(values.get("gpus_per_node", 1)), int(values.get("cpus_per_gpu", 1))
    return {
        "cpu_partition": values.get("partition", ""),
        "cpus_per_node": str(gpus * cpus),
        "cpus_per_job": str(gpus * cpus),
        "devices": ",".join(map(str, range(gpus))),
        "nodes": "2",
        "warning_seconds": "300",
    }


def _together(known: dict[str, str], warned: bool) -> Iterator[str]:
    """Faults of values that are right by themselves; a file's path becomes absolute."""
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
                "its end and hardly work; give half of the walltime or less"
            )


def _filled(template: Path, known: Mapping[str, str]) -> str:
    lines = []
    for line in template.read_text(encoding="utf-8").splitlines(keepends=True):
        names = _PLACEHOLDER.findall(line)
        if all(name in known for name, _ in names):
            lines.append(_PLACEHOLDER.sub(lambda match: known[match[1]], line))
        elif not all(optional for name, optional in names if name not in known):
            raise AssertionError(f"{template}: {line}")  # `values_of` has asked for it
    return "".join(lines)
