"""Files of reference sets on this machine: found where a user has them, downloaded, and verified.

A downloaded set has a folder of its own name. The size and sha256 of each file of a first download are noted there, so
that a later download of a file without a published digest has to give the same content.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esen_flows.data.download import DownloadError, Progress, download, listed_names
from esen_flows.data.reference_sets.table import REFERENCE_SETS, ReferenceFile, ReferenceSet
from esen_flows.errors import InputError
from esen_flows.files import digest_of_file, sha256_of_file, written_whole

PINS = "pinned.json"
PINNED_TOGETHER = 100  # files of sets that have thousands of them
# A user's files may lie in the folder of reference sets itself or up to two folders below it.
_DEPTHS = ("", "*/", "*/*/")


@dataclass(frozen=True)
class Fault:
    """A file that is missing or has another content than it should.

    Attributes
    ----------
    file
        Path of the file.
    reason
        What is wrong and what to do, as a sentence.
    """

    file: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


def reference_set(name: str) -> ReferenceSet:
    """The entry of a reference set.

    Parameters
    ----------
    name
        Name of the set.

    Returns
    -------
    ReferenceSet
        Its entry in the table.

    Raises
    ------
    InputError
        There is no such set; the message lists all names.
    """
    if name not in REFERENCE_SETS:
        raise InputError(f"no reference set {name!r}; there are {', '.join(REFERENCE_SETS)}")
    return REFERENCE_SETS[name]


def find(name: str, root: Path) -> list[Path]:
    """Files of a reference set that are on this machine.

    Parameters
    ----------
    name
        Name of the set.
    root
        Folder of reference sets: the files are in its folder NAME, or have a name of the set's pattern and lie in the
        folder itself or up to two folders below it.

    Returns
    -------
    list[Path]
        The files, sorted; empty if there is none.

    Raises
    ------
    InputError
        There is no such set.
    """
    published = reference_set(name)
    for place in (f"{name}/", *_DEPTHS):
        found = sorted(path for path in root.glob(place + published.pattern) if path.suffix != ".part")
        if found:
            return found
    return []


def pull(name: str, root: Path, progress: Callable[[str], Progress] | None = None) -> list[Path]:
    """Download the files of a reference set that are not on this machine, and continue those that broke off.

    Parameters
    ----------
    name
        Name of the set.
    root
        Folder of reference sets; the files go into its folder NAME.
    progress
        Gives for the name of a file the function that is called with the bytes so far and in all (None: not known).

    Returns
    -------
    list[Path]
        All files of the set.

    Raises
    ------
    InputError
        There is no such set.
    DownloadError
        A file cannot be fetched or has another content; the message says where to get it and where to put it.
    """
    published, folder, found = reference_set(name), root / name, find(name, root)
    here = {path.name for path in found}
    # Files of a user's own folder, perhaps under another name; a set of several may be there in part only.
    is_elsewhere = bool(found) and found[0].parent != folder
    if found and (len(published.files) == 1 or (is_elsewhere and {file.name for file in published.files} <= here)):
        return found
    here, pins = set() if is_elsewhere else here, read_pins(folder)
    missing = [file for file in _files_to_have(published, folder) if file.name not in here]
    for number, file in enumerate(missing, 1):
        folder.mkdir(parents=True, exist_ok=True)
        target, pinned = folder / file.name, pins.get(file.name, {})
        report = None if progress is None else progress(file.name)
        try:
            download(file.url, target, md5=file.md5, sha256=pinned.get("sha256"), progress=report)
        except BaseException as error:
            if pins:
                _write_pins(folder, pins)
            if isinstance(error, DownloadError):
                raise _by_hand(error, file.name, file.address, target) from error
            raise
        pins[file.name] = {"url": file.url, "bytes": target.stat().st_size, "sha256": sha256_of_file(target)}
        if number % PINNED_TOGETHER == 0 or number == len(missing):
            _write_pins(folder, pins)
    return find(name, root)


def _write_pins(folder: Path, pins: dict[str, dict[str, Any]]) -> None:
    with written_whole(folder / PINS) as temporary:
        temporary.write_text(json.dumps(pins, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def verify(name: str, root: Path, on_file: Callable[[Path], None] | None = None) -> Iterator[Fault]:
    """Compare the files of a reference set with their published digests and with those of the first download.

    Parameters
    ----------
    name
        Name of the set.
    root
        Folder of reference sets.
    on_file
        Called with each file before it is read.

    Yields
    ------
    Fault
        A file that is missing or has another content.

    Raises
    ------
    InputError
        There is no such set.
    """
    published, folder, found = reference_set(name), root / name, find(name, root)
    pins = read_pins(folder)
    files = {file.name: file for file in published.files} or dict.fromkeys(pins)
    if len(files) == 1 and found:  # perhaps under another name
        files = {found[0].name: next(iter(files.values()))}
    if not files and not found:
        yield Fault(folder / published.pattern, f"missing; run: esen-flows data pull {name}")
    by_name = {path.name: path for path in found}
    for known, file in files.items():
        path = by_name.get(known)
        if path is None:
            yield Fault(folder / known, f"missing; run: esen-flows data pull {name}")
            continue
        if on_file is not None:
            on_file(path)
        reason = _difference(path, file, pins.get(known, {}) if path.parent == folder else {})
        if reason is not None:
            remedy = f"for the published file remove it and run: esen-flows data pull {name}"
            yield Fault(path, f"{reason}: damaged, or another version; {remedy}")


def without_digest(name: str, root: Path) -> list[Path]:
    """Files of a reference set that `verify` has nothing to compare with.

    Parameters
    ----------
    name
        Name of the set.
    root
        Folder of reference sets.

    Returns
    -------
    list[Path]
        Files that are here, have no published digest and were not downloaded by this package.

    Raises
    ------
    InputError
        There is no such set.
    """
    published, folder, found = reference_set(name), root / name, find(name, root)
    pins = read_pins(folder)
    digests = {file.name for file in published.files if file.md5 is not None}
    if len(published.files) == 1 and digests:  # perhaps under another name
        return []
    return [path for path in found if path.name not in digests and not (path.parent == folder and path.name in pins)]


def read_pins(folder: Path) -> dict[str, dict[str, Any]]:
    """Sizes and digests that were noted when files were downloaded.

    Parameters
    ----------
    folder
        Folder of a set.

    Returns
    -------
    dict[str, dict[str, Any]]
        url, bytes and sha256 of each file; empty if nothing was downloaded.

    Raises
    ------
    InputError
        The notes cannot be read.
    """
    path = folder / PINS
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(file): dict(pin) for file, pin in content.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read ({error}); remove it to accept the files as they are") from error


def _files_to_have(published: ReferenceSet, folder: Path) -> list[ReferenceFile]:
    if not published.listing:
        return list(published.files)
    expression = published.pattern.replace(".", r"\.").replace("*", r"[\w-]+")
    try:
        names = listed_names(published.listing, expression)
    except DownloadError as error:
        raise _by_hand(error, f"the files {published.pattern}", published.listing, folder) from error
    return [ReferenceFile(each, published.listing + each) for each in names]


def _by_hand(error: DownloadError, what: str, address: str, target: Path) -> DownloadError:
    """The same error with what a user can do."""
    return DownloadError(
        f"{error}. By hand: get {what} from {address} and put it at {target}, or set ESEN_FLOWS_REFERENCE_DIR to a "
        "folder that has it.",
        error.status,
    )


def _difference(path: Path, file: ReferenceFile | None, pin: dict[str, Any]) -> str | None:
    """What is wrong with a file, from the cheapest check to the most expensive one."""
    size = path.stat().st_size
    for known, source in ((file and file.size_bytes, "published"), (pin.get("bytes"), "first downloaded")):
        if known is not None and known != size:
            return f"has {size} bytes, the {source} file has {known}"
    if file is not None and file.md5 is not None and (found := digest_of_file(path, "md5")) != file.md5:
        return f"has md5 {found}, the published file has {file.md5}"
    if "sha256" in pin and (found := sha256_of_file(path)) != pin["sha256"]:
        return f"has sha256 {found}, the first downloaded file had {pin['sha256']}"
    return None
