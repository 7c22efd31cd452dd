"""Labelled structures from any source: the formats, their detection, and the provenance of a source."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

from esen_flows.data.extxyz import read_provenance, sidecar_path
from esen_flows.data.folders import INDEX_NAME, is_dataset_folder, open_dataset, read_index
from esen_flows.data.screening import BadRecord, ReadRecord
from esen_flows.data.sources.ase_databases import read_ase_db, read_ase_lmdb
from esen_flows.data.sources.ase_files import read_extxyz, read_with_ase
from esen_flows.data.sources.bounded_files import BROKEN_STREAM, TruncatedFileError, open_text
from esen_flows.data.sources.conventions import Convention
from esen_flows.data.sources.matpes import read_matpes
from esen_flows.data.sources.mptrj import read_mptrj
from esen_flows.data.sources.options import SourceOptions
from esen_flows.data.sources.spice import read_spice
from esen_flows.data.sources.vocabulary import SourceFormat
from esen_flows.errors import InputError
from esen_flows.files import sha256_of_file

Reader = Callable[[Path, SourceOptions, Convention], Iterator[ReadRecord]]

# The reader of each format, and the suffixes by which it is detected.
_FORMATS: dict[str, tuple[Reader, tuple[str, ...]]] = {
    "extxyz": (read_extxyz, (".xyz", ".extxyz")),
    "ase-db": (read_ase_db, (".db",)),
    "ase-lmdb": (read_ase_lmdb, (".aselmdb", ".lmdb")),
    "mptrj": (read_mptrj, (".json",)),
    "matpes": (read_matpes, ()),  # JSON as well: an array, and not an object
    "spice": (read_spice, (".hdf5", ".h5")),
    "ase": (read_with_ase, (".traj", ".xml", ".outcar")),
}
# Files of VASP keep their names, with anything behind them, as in vasprun.xml-00007 and OUTCAR.gz.
_PREFIXES = ("vasprun.xml", "outcar")


def detect_format(path: Path) -> SourceFormat:
    """The format of a file by its name, or of the files in a folder by theirs.

    Parameters
    ----------
    path
        File or folder.

    Returns
    -------
    SourceFormat
        The format.

    Raises
    ------
    InputError
        There is nothing at the path, no name is known, or a folder holds files of several formats.
    """
    if is_dataset_folder(path):
        return "folder"
    files = _files_below(path) if path.is_dir() else [path]
    found = {name for name in map(_format_by_name, files) if name is not None}
    if not path.exists():
        raise InputError(f"nothing at {path}; check the path")
    if len(found) != 1:
        what = f"files of the formats {', '.join(sorted(found))}" if found else "no known format"
        formats = ", ".join(get_args(SourceFormat))
        raise InputError(f"{path} holds {what}; name it: esen-flows data import --format, one of {formats}")
    return found.pop()


def _format_by_name(path: Path) -> Any:
    name = path.name.lower()
    for suffix in (".gz", ".bz2", ".xz"):
        name = name.removesuffix(suffix)
    if name.startswith(_PREFIXES):
        return "ase"
    if name.endswith(".json") and _begins_with_bracket(path):
        return "matpes"
    return next((known for known, (_, suffixes) in _FORMATS.items() if Path(name).suffix in suffixes), None)


def _begins_with_bracket(path: Path) -> bool:
    try:
        with open_text(path, errors="replace") as stream:
            return stream.read(64).lstrip().startswith("[")
    except (OSError, *BROKEN_STREAM):  # the reader says so
        return False


def _files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def source_files(path: Path, source_format: SourceFormat | None = None) -> list[Path]:
    """Files of a source.

    Parameters
    ----------
    path
        File or folder.
    source_format
        Format of the files; None takes the format that their names tell.

    Returns
    -------
    list[Path]
        The file itself, or the files of this format in the folder, sorted by name.
    """
    if path.is_dir():
        known = source_format or detect_format(path)
        return [file for file in _files_below(path) if _format_by_name(file) == known]
    return [path]


def read_source(
    path: Path | str, source_format: SourceFormat | None = None, options: SourceOptions | None = None
) -> Iterator[ReadRecord]:
    """Records of a file, or of all files of one format in a folder, one after the other.

    Parameters
    ----------
    path
        File, folder of files, or dataset folder.
    source_format
        Format of the files; None takes the format that their names tell.
    options
        Names and units that the source does not give itself.

    Yields
    ------
    LabelledStructure | BadRecord
        One entry for each record, and a bad record for a file that ends in the middle.

    Raises
    ------
    InputError
        There is nothing at the path, the format is not known, or a file is not of its format.
    """
    path, options = Path(path), options or SourceOptions()
    known = source_format or detect_format(path)
    if known == "folder":
        if options.given():
            raise InputError(f"{path} is a dataset folder with names and units; leave out {sorted(options.given())}")
        yield from open_dataset(path)
        return
    if known not in _FORMATS:
        raise InputError(f"unknown format {known!r}; known: {', '.join(get_args(SourceFormat))}")
    if not path.exists():
        raise InputError(f"nothing at {path}; check the path")
    for file in source_files(path, known):
        try:
            yield from _FORMATS[known][0](file, options, options.convention(known))
        except (TruncatedFileError, *BROKEN_STREAM) as error:
            yield BadRecord(str(file), "the file ends in the middle or is damaged", str(error))


def source_provenance(
    path: Path | str, source_format: SourceFormat | None = None, options: SourceOptions | None = None
) -> dict[str, Any]:
    """Provenance of the records of a source.

    Parameters
    ----------
    path
        File, folder of files, or dataset folder.
    source_format
        Format of the files; None takes the format that their names tell.
    options
        Names and units that the source does not give itself.

    Returns
    -------
    dict[str, Any]
        Name, format, options and units, and each file with its size and sha256.
    """
    path, options = Path(path), options or SourceOptions()
    known = source_format or detect_format(path)
    document: dict[str, Any] = {"name": path.name, "format": known, "options": options.given()}
    if known == "folder":
        index = read_index(path)
        files = [path / INDEX_NAME]
        document |= {"key": index["key"], "provenance": index["provenance"]}
    else:
        files = source_files(path, known)
        document["units"] = options.convention(known).words()
        if sidecar_path(path).is_file():
            document["labelled"] = read_provenance(path)
    base = path if path.is_dir() else path.parent
    document["files"] = [
        {"name": str(file.relative_to(base)), "bytes": file.stat().st_size, "sha256": sha256_of_file(file)}
        for file in files
    ]
    return document
