"""Downloads from a server of our own: resumed, verified, and the token for its own host only."""

import hashlib
import threading
import urllib.request
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from esen_flows.data.download import DownloadError, _Redirects, download

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """/file; /moved forwards to the other host; /gated needs a token; /broken stops half-way; /lies misnames it.

    /challenge answers as to a browser.
    """

    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get("Authorization"), self.headers.get("Range")))
        if self.path == "/gone":
            self.send_error(404)
        elif self.path == "/gated" and self.headers.get("Authorization") != "Bearer secret":
            self.send_error(401)
        elif self.path == "/challenge":
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path in ("/moved", "/lies"):
            self.send_response(302)
            self.send_header("X-Linked-Etag", f'"{SHA256 if self.path == "/moved" else "0" * 64}"')
            self.send_header("Location", self.server.elsewhere + "/file")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_file()

    def send_file(self):
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        stop = len(CONTENT) // 2 if self.path == "/broken" else len(CONTENT)
        self.wfile.write(CONTENT[start:stop])

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def hubs():
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Hub) for _ in range(2)]
    # Another name for the same machine is another host.
    servers[0].elsewhere = f"http://localhost:{servers[1].server_port}"
    for server in servers:
        server.seen = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


def url(hubs, path):
    return f"http://127.0.0.1:{hubs[0].server_port}{path}"


def test_a_download_is_whole_and_reports_progress(hubs, tmp_path):
    seen = []
    download(url(hubs, "/file"), tmp_path / "f", sha256=SHA256, progress=lambda *amounts: seen.append(amounts))
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert list(tmp_path.iterdir()) == [tmp_path / "f"]


def test_a_broken_connection_is_continued(hubs, tmp_path):
    with pytest.raises(DownloadError, match=rf"broke after {len(CONTENT) // 2} of {len(CONTENT)} bytes"):
        download(url(hubs, "/broken"), tmp_path / "f")
    assert (tmp_path / "f.part").stat().st_size == len(CONTENT) // 2
    assert not (tmp_path / "f").exists()
    download(url(hubs, "/file"), tmp_path / "f", sha256=SHA256)
    assert hubs[0].seen[-1] == ("/file", None, f"bytes={len(CONTENT) // 2}-")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_complete_part_is_only_verified(hubs, tmp_path):
    (tmp_path / "f.part").write_bytes(CONTENT)
    download(url(hubs, "/file"), tmp_path / "f", sha256=SHA256)
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_of_another_version(hubs, tmp_path):
    (tmp_path / "f.part").write_bytes(CONTENT + b"more")
    with pytest.raises(DownloadError, match=f"has {len(CONTENT)} bytes, {len(CONTENT) + 4} were here"):
        download(url(hubs, "/file"), tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("start", "end", "kept"),
    [
        ("https://hub.org/f", "https://hub.org/g", True),
        ("http://hub.org/f", "https://hub.org/g", True),
        ("https://hub.org/f", "http://hub.org/g", False),
        ("https://hub.org/f", "https://other.org/g", False),
    ],
)
def test_the_token_is_not_forwarded_in_the_clear(start, end, kept):
    request = urllib.request.Request(start, headers={"Authorization": "Bearer secret"})
    forwarded = _Redirects().redirect_request(request, None, 302, "", Message(), end)
    assert forwarded.has_header("Authorization") == kept


def test_wrong_bytes_are_removed(hubs, tmp_path):
    with pytest.raises(DownloadError, match=r"expected 1111111111111111\.\.\.; fetch it again"):
        download(url(hubs, "/file"), tmp_path / "f", sha256="1" * 64)
    with pytest.raises(DownloadError, match=r"expected 0000000000000000\.\.\."):  # as the hub itself names it
        download(url(hubs, "/lies"), tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_the_token_stays_with_its_host(hubs, tmp_path):
    with pytest.raises(DownloadError, match="HTTP 401") as refused:
        download(url(hubs, "/gated"), tmp_path / "f")
    assert refused.value.status == 401
    download(url(hubs, "/gated"), tmp_path / "f", token="secret")
    download(url(hubs, "/moved"), tmp_path / "g", token="secret")
    assert hubs[0].seen[-1][:2] == ("/moved", "Bearer secret")
    assert hubs[1].seen[-1][:2] == ("/file", None)


def test_an_answer_without_the_file_is_none(hubs, tmp_path):
    with pytest.raises(DownloadError, match="/challenge answers HTTP 202 without the file"):
        download(url(hubs, "/challenge"), tmp_path / "f")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DownloadError, match=r"has md5 .*, expected 2222222222222222\.\.\."):
        download(url(hubs, "/file"), tmp_path / "f", sha256=SHA256, md5="2" * 32)


def test_no_server_and_no_file(hubs, tmp_path):
    with pytest.raises(DownloadError, match="HTTP 404") as missing:
        download(url(hubs, "/gone"), tmp_path / "f")
    assert missing.value.status == 404
    with pytest.raises(DownloadError, match="cannot be fetched") as silent:
        download("http://127.0.0.1:9/file", tmp_path / "f")
    assert silent.value.status is None
