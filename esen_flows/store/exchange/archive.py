"""The archive: results, structures and arrays in one tar file with checksums, which other programs can read too.

    manifest.json           format and versions, first
    results/000000.jsonl    results as MongoDB's canonical extended JSON, one in a line
    structures/000000.jsonl input structures, likewise
    models/000000.jsonl     the force fields of the results, likewise
    datasets/000000.jsonl   the datasets of the results, likewise
    blobs/<key>.npy         large arrays in numpy's format, by the hash of their content
    checksums.json          sha256 of every other file, last

Nothing is ever unpacked to disk, and no name in an archive is used as a path. Checksums find damage; they are no
signature.
"""

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from bson import json_util

from esen_flows.errors import InputError
from esen_flows.schemas.keys import array_key
from esen_flows.store.database import Row
from esen_flows.store.exchange.extended_json import DocumentError, parsed
from esen_flows.version import __version__

FORMAT, FORMAT_VERSION = "esen_flows archive", 1
_MANIFEST, _CHECKSUMS = "manifest.json", "checksums.json"
_PART_BYTES = 8 * 2**20  # of lines in a part; one line may be longer
_NAMES = re.compile(
    r"manifest\.json|(results|structures|models|datasets)/[0-9]{6}\.jsonl|blobs/[0-9a-f]{64}\.npy|checksums\.json"
)


class ArchiveWriter:
    """Writes an archive in a `with` block; the file takes its name when the block ends without an error.

    Parameters
    ----------
    path
        Archive to write; it must not exist.

    Raises
    ------
    InputError
        `path` exists.
    """

    def __init__(self, path: Path) -> None:
        if path.exists():
            raise self._exists(path)
        self._path = path
        # Not `written_whole`, which would replace a file of this name: it may be the only copy of its results.
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._file = self._partial.open("xb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._checksums: dict[str, str] = {}

    def __enter__(self) -> "ArchiveWriter":
        manifest = {"format": FORMAT, "format_version": FORMAT_VERSION, "package_version": __version__}
        self._add(_MANIFEST, json.dumps(manifest).encode())
        return self

    def __exit__(self, error: type[BaseException] | None, *details: object) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            with suppress(OSError):
                self._file.close()
            self._partial.unlink(missing_ok=True)

    def add_rows(self, folder: str, rows: Iterable[Row]) -> int:
        """Write documents as they come.

        Parameters
        ----------
        folder
            "results", "structures", "models" or "datasets".
        rows
            Documents of this collection.

        Returns
        -------
        int
            Number of documents.
        """
        lines: list[str] = []
        count = length = part = 0
        for row in rows:
            lines.append(json_util.dumps(row, json_options=json_util.CANONICAL_JSON_OPTIONS) + "\n")
            count, length = count + 1, length + len(lines[-1])
            if length >= _PART_BYTES:
                self._add(f"{folder}/{part:06d}.jsonl", "".join(lines).encode())
                lines, length, part = [], 0, part + 1
        if lines:
            self._add(f"{folder}/{part:06d}.jsonl", "".join(lines).encode())
        return count

    def add_array(self, sha: str, array: np.ndarray) -> None:
        """Write a large array.

        Parameters
        ----------
        sha
            Content key of the array.
        array
            Array of any shape.
        """
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, array, allow_pickle=False)
        self._add(f"blobs/{sha}.npy", buffer.getvalue())

    def _add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)  # no owner and no time: the same content makes the same file
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))
        self._checksums[name] = hashlib.sha256(data).hexdigest()

    def _finish(self) -> None:
        self._add(_CHECKSUMS, json.dumps(self._checksums).encode())
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        try:
            os.link(self._partial, self._path)  # unlike renaming, linking replaces nothing
        except FileExistsError:
            raise self._exists(self._path) from None

    @staticmethod
    def _exists(path: Path) -> InputError:
        return InputError(f"{path} exists; give the archive another name")


class Archive:
    """Reads an archive; everything is compared with its checksum.

    Parameters
    ----------
    path
        Archive to read.

    Raises
    ------
    InputError
        The file is not an archive, is incomplete or damaged, or has a newer format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._tar = tarfile.open(path, mode="r:")  # noqa: SIM115
        except FileNotFoundError:
            raise InputError(f"there is no file {path}") from None
        except (tarfile.TarError, OSError) as error:
            raise InputError(f"{path} is not an archive of `esen-flows db export` ({error})") from None
        try:
            self._members = self._read_members()
            self._checksums = self._read_checksums()
            self._check_manifest()
        except BaseException:
            self._tar.close()
            raise

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *details: object) -> None:
        self._tar.close()

    @property
    def arrays(self) -> set[str]:
        """Content keys of the large arrays."""
        return {name[6:-4] for name in self._checksums if name.startswith("blobs/")}

    def rows(self, folder: str) -> Iterator[Row]:
        """The documents of a folder.

        Parameters
        ----------
        folder
            "results", "structures", "models" or "datasets".

        Yields
        ------
        Row
            A document.
        """
        for name in sorted(name for name in self._checksums if name.startswith(f"{folder}/")):
            for line in self._read(name).splitlines():
                yield self._parsed(name, line)

    def array(self, sha: str) -> np.ndarray:
        """A large array.

        Parameters
        ----------
        sha
            Content key of the array.

        Returns
        -------
        ndarray
            The array.

        Raises
        ------
        InputError
            The array is missing or damaged.
        """
        name = f"blobs/{sha}.npy"
        data = self._read(name)
        try:
            array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError, TypeError, SyntaxError, OverflowError, MemoryError) as error:
            raise self._damaged(f"{name}: {error}") from None
        if array_key(array) != sha:
            raise self._damaged(f"{name} is not the array of its name")
        return array

    def _read(self, name: str) -> bytes:
        if name not in self._members:
            raise self._damaged(f"{name} is missing")
        data = self._content(self._members[name])
        if hashlib.sha256(data).hexdigest() != self._checksums[name]:
            raise self._damaged(f"{name} does not match its checksum")
        return data

    def _content(self, member: tarfile.TarInfo) -> bytes:
        try:
            file = self._tar.extractfile(member)
            data = b"" if file is None else file.read()
        except (tarfile.TarError, OSError) as error:
            raise self._damaged(f"{member.name}: {error}") from None
        if len(data) != member.size:
            raise self._damaged(f"{member.name} is cut off")
        return data

    def _read_members(self) -> dict[str, tarfile.TarInfo]:
        members: dict[str, tarfile.TarInfo] = {}
        try:
            found = self._tar.getmembers()
        except (tarfile.TarError, OSError, ValueError) as error:
            raise self._damaged(str(error)) from None
        for member in found:
            plain = member.type == tarfile.REGTYPE and member.sparse is None
            if not plain or not _NAMES.fullmatch(member.name) or member.name in members:
                raise self._damaged(f"it holds {member.name!r}, which does not belong in an archive")
            members[member.name] = member
        return members

    def _read_checksums(self) -> dict[str, str]:
        member = self._members.pop(_CHECKSUMS, None)
        if member is None:
            raise self._damaged(f"{_CHECKSUMS}, its last file, is missing")
        checksums = self._parsed(_CHECKSUMS, self._content(member))
        if set(checksums) != set(self._members):
            odd = min(set(checksums) ^ set(self._members))
            raise self._damaged(f"{odd!r} is not in both the archive and its {_CHECKSUMS}")
        return {str(name): str(checksum) for name, checksum in checksums.items()}

    def _check_manifest(self) -> None:
        manifest = self._parsed(_MANIFEST, self._read(_MANIFEST))
        version = manifest.get("format_version")
        if manifest.get("format") != FORMAT or not isinstance(version, int):
            raise self._damaged(f"{_MANIFEST} is not that of an archive")
        if version > FORMAT_VERSION:
            raise InputError(f"{self.path} has format {version}, newer than {FORMAT_VERSION}; upgrade esen_flows")

    def _parsed(self, name: str, text: bytes) -> dict[str, Any]:
        try:
            return parsed(text)
        except DocumentError as error:
            raise self._damaged(f"{name}: {error}") from None

    def _damaged(self, what: str) -> InputError:
        return InputError(f"{self.path} is damaged: {what}; nothing was imported, export it again")
