"""Large files from the web: resumed where they broke off, verified, complete or not there at all.

Standard library only: the rooms that use it have to run on a bare machine.
"""

import re
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from esen_flows.errors import EsenFlowsError
from esen_flows.files import digest_of_file

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 30.0
LARGEST_LISTING_BYTES = 1 << 25
# Some servers refuse programs that do not name a browser.
HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; esen_flows)"}
Progress = Callable[[int, int | None], None]


class DownloadError(EsenFlowsError):
    """A file could not be fetched.

    Parameters
    ----------
    message
        Reason for the user.
    status
        HTTP status; None where no answer came.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, and keeps the digest that a hub names before it forwards.

    The token goes to no other host, and to no address without https.
    """

    def __init__(self) -> None:
        self.digest: str | None = None

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        self.digest = self.digest or _named_digest(headers)
        new = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        old, target = urlsplit(req.full_url), urlsplit(newurl)
        if new is not None and (target.netloc != old.netloc or target.scheme not in (old.scheme, "https")):
            new.remove_header("Authorization")
        return new


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    token: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Fetch a file. A part that an interrupted call left beside it (`path` + ".part") is continued.

    Parameters
    ----------
    url
        Address of the file.
    path
        File to write.
    sha256, md5
        Digests that the file must have. A sha256 that the server names is checked too.
    token
        Bearer token; it is sent to the host of `url` only.
    progress
        Called with the number of bytes so far and of all bytes (None: not known).

    Raises
    ------
    DownloadError
        There is no answer, the server refuses, the connection breaks (the part is kept), or the checksum is wrong (the
        part is removed).
    """
    # Not `files.written_whole`: its temporary file is gone after an error, and this one is continued.
    partial = path.with_name(path.name + ".part")
    redirects = _Redirects()
    done = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(url, headers=HEADERS | ({"Range": f"bytes={done}-"} if done else {}))
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.build_opener(redirects).open(request, timeout=TIMEOUT_SECONDS) as answer:
            if answer.status not in (200, 206):  # a challenge to browsers is a 202 without content
                raise DownloadError(f"{url} answers HTTP {answer.status} without the file", answer.status)
            named = redirects.digest or _named_digest(answer.headers)
            _write(answer, partial, done if answer.status == 206 else 0, progress)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: nothing is left to fetch
            raise DownloadError(f"{url} answers HTTP {error.code} {error.reason}", error.code) from error
        named = redirects.digest or _named_digest(error.headers)
        whole = error.headers.get("Content-Range", "").rpartition("/")[2]
        if not done or (whole.isdigit() and int(whole) != done):
            partial.unlink(missing_ok=True)
            raise DownloadError(
                f"{url} has {whole or 'no'} bytes, {done} were here: another version; fetch it again", error.code
            ) from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise DownloadError(f"{url} cannot be fetched: {reason}") from error
    for algorithm, expected in {("sha256", sha256), ("sha256", named), ("md5", md5)}:
        found = expected and digest_of_file(partial, algorithm)
        if expected != found:
            partial.unlink()  # every further attempt would only add to the wrong bytes
            raise DownloadError(
                f"{url} has {algorithm} {str(found)[:16]}..., expected {str(expected)[:16]}...; fetch it again"
            )
    partial.replace(path)


def listed_names(url: str, pattern: str) -> list[str]:
    """Names of the files in a folder that a server lists.

    Parameters
    ----------
    url
        Address of the folder, with a slash at its end.
    pattern
        Regular expression of the names.

    Returns
    -------
    list[str]
        Names, sorted.

    Raises
    ------
    DownloadError
        There is no answer, or the answer names no such file.
    """
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=HEADERS), timeout=TIMEOUT_SECONDS) as answer:
            page = answer.read(LARGEST_LISTING_BYTES).decode(errors="replace")
    except (OSError, HTTPException) as error:
        raise DownloadError(f"{url} cannot be read: {getattr(error, 'reason', error)}") from error
    names = sorted(set(re.findall(f'href="({pattern})"', page)))
    if not names:
        raise DownloadError(f"{url} lists no files of this set")
    return names


def _write(answer: Any, partial: Path, done: int, progress: Progress | None) -> None:
    """Append an answer to the part of a file, of which `done` bytes are there."""
    length = answer.headers.get("Content-Length")
    total = done + int(length) if length is not None else None
    with partial.open("ab" if done else "wb") as stream:
        while chunk := answer.read(CHUNK_BYTES):
            stream.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, total)
    if total is not None and done != total:
        raise OSError(f"the connection broke after {done} of {total} bytes; the same command goes on from there")


def _named_digest(headers: Message) -> str | None:
    """The sha256 by which a hub names a large file (X-Linked-Etag, as Hugging Face sends it)."""
    value = headers.get("X-Linked-Etag", "").strip('"')
    return value if len(value) == 64 else None
