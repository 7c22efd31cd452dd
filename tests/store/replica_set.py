"""A real server for the tests of the store: a replica set of one member, with users and TLS, that can be killed."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

from pymongo import MongoClient

PASSWORD = "geheim/wort@1"  # has to be escaped in a URI
DATABASE = "guarded"


class ReplicaSet:
    """A mongod with --auth and --replSet, which is reached by host and port.

    Attributes
    ----------
    folder
        Folder of the server.
    writer, reader
        URIs of a user who may write and of one who may only read.
    """

    def __init__(self, folder: Path, binary: Path) -> None:
        self.folder = folder
        (folder / "data").mkdir(parents=True)
        key = folder / "keyfile"
        key.write_text("c2VjcmV0" * 8)
        key.chmod(0o400)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._host = f"127.0.0.1:{port}"
        self._command = [str(binary), "--dbpath", str(folder / "data"), "--logpath", str(folder / "log"), "--logappend"]
        self._command += ["--bind_ip", "127.0.0.1", "--port", str(port), "--nounixsocket"]
        self._command += ["--tlsMode", "allowTLS", "--tlsCertificateKeyFile", str(_certificate(folder))]
        self._command += ["--wiredTigerCacheSizeGB", "0.25", "--setParameter", "diagnosticDataCollectionEnabled=false"]
        self._command += ["--replSet", "rs0", "--oplogSize", "64", "--auth", "--keyFile", str(key)]
        self.writer, self.reader = (
            f"mongodb://{user}:{quote(PASSWORD, safe='')}@{self._host}/?replicaSet=rs0&authSource=admin"
            for user in ("writer", "reader")
        )
        self.start()
        try:
            self._make_users()
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """Process number of mongod."""
        return self._process.pid

    def start(self) -> None:
        """Start mongod, for the first time or after a kill."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        """Kill mongod with SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)
        self._process.wait()

    def _make_users(self) -> None:
        """Create the first user by the localhost exception, and the others with it."""
        uri = f"mongodb://{self._host}/?directConnection=true"
        client: MongoClient[dict[str, object]] = MongoClient(uri, serverSelectionTimeoutMS=600_000)
        client.admin.command("replSetInitiate", {"_id": "rs0", "members": [{"_id": 0, "host": self._host}]})
        deadline = time.monotonic() + 600
        while not client.admin.command("hello")["isWritablePrimary"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        roles = [{"role": "root", "db": "admin"}]
        client.admin.command("createUser", "root", pwd=PASSWORD, roles=roles)
        client.close()
        client = MongoClient(uri, username="root", password=PASSWORD)
        for user, role in (("writer", "readWrite"), ("reader", "read")):
            client.admin.command("createUser", user, pwd=PASSWORD, roles=[{"role": role, "db": DATABASE}])
        client.close()


def _certificate(folder: Path) -> Path:
    """A self-signed certificate with its key."""
    key, signed, both = folder / "key.pem", folder / "ca.pem", folder / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(signed)]
    subprocess.run(command, check=True, capture_output=True)
    both.write_text(key.read_text() + signed.read_text())
    return both
