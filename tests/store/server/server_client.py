"""A process that uses the private server until its input is closed: data directory and idle time are its arguments."""

import sys
from pathlib import Path

from esen_flows.store.server.embedded import EmbeddedServer
from esen_flows.store.server.layout import Layout

if __name__ == "__main__":
    lease = EmbeddedServer(Layout.of(Path(sys.argv[1])), float(sys.argv[2])).connect()
    print(lease.socket, lease.server.status()["mongod_pid"], flush=True)
    input()
