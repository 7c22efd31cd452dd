"""The files in an archive, to be changed."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

Members = dict[str, bytes]


def members_of(path: Path) -> Members:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def write_members(path: Path, members: Members, sign: bool = False) -> Path:
    """An archive of these members; `sign` makes the checksums fit."""
    if sign:
        sums = {name: hashlib.sha256(data).hexdigest() for name, data in members.items() if name != "checksums.json"}
        members = members | {"checksums.json": json.dumps(sums).encode()}
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path
