"""`esen-flows doctor`: what is installed and would be used; starts nothing and prints no secrets."""

import os
import platform
import sys
from collections.abc import Iterator

import typer
from rich.console import Console
from rich.table import Table

from esen_flows.errors import EsenFlowsError
from esen_flows.files import free_bytes
from esen_flows.settings import get_settings
from esen_flows.version import __version__


def doctor() -> None:
    """Report versions, database, devices, threads, allocator and models.

    The exit status is 1 if something needed is missing.
    """
    table = Table(show_header=False)
    found = list(_checks())
    for name, value, good in found:
        table.add_row(name, value if good else f"[red]{value}[/red]")
    Console().print(table)
    if not all(good for _, _, good in found):
        raise typer.Exit(1)


def _checks() -> Iterator[tuple[str, str, bool]]:
    """Name, finding, and whether the finding is good."""
    from esen_flows.schemas.provenance import git_revision, library_versions

    revision = git_revision()
    yield "esen_flows", f"{__version__} ({revision})" if revision else __version__, True
    yield "python", f"{platform.python_version()} ({sys.executable})", True
    yield "machine", f"{platform.platform()}, {os.cpu_count()} CPUs", True
    for library, version in library_versions().items():
        yield library, version, True
    yield from _database()
    yield from _compute()
    yield from _models()


def _database() -> Iterator[tuple[str, str, bool]]:
    settings = get_settings()
    yield "database", settings.database, True
    if settings.mongo_uri is not None:
        yield "server", "that of ESEN_FLOWS_MONGO_URI (not shown, it may hold a password)", True
        return
    from esen_flows.store.host import Host
    from esen_flows.store.server.embedded import status
    from esen_flows.store.server.layout import Layout, full_disk
    from esen_flows.store.server.mongod import find_mongod

    try:
        mongod = find_mongod(settings.mongod)
        yield "mongod", f"{mongod.version} ({mongod.binary})", True
    except EsenFlowsError as error:
        yield "mongod", str(error), False
    if Host().lacks_avx():
        yield "processor", "no AVX: mongod 5 and later cannot run here; set ESEN_FLOWS_MONGO_URI", False
    network = Host().network_file_system(settings.data_dir)
    note = f" is on a network file system ({network[0]}); set ESEN_FLOWS_DATA_DIR to a local disk" if network else ""
    yield "data", f"{settings.data_dir}{note}", not network
    lack = full_disk(Layout.of(settings.data_dir))
    free = free_bytes(settings.data_dir)
    yield (
        "free space",
        lack or ("unknown" if free is None else f"{free / 1e9:.1f} GB for the data folder"),
        lack is None,
    )
    yield "server", "running" if status(settings)["running"] else "not running; starts when it is needed", True


def _compute() -> Iterator[tuple[str, str, bool]]:
    from esen_flows.cli.machine import tune_allocator

    try:
        import torch
    except ImportError as error:
        yield "torch", f"cannot be imported: {error}", False
        return
    yield "threads", f"{torch.get_num_threads()} (ESEN_FLOWS_THREADS, OMP_NUM_THREADS)", True
    devices = ["cpu", *(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))]
    yield "devices", ", ".join(devices), True
    from esen_flows.native import status
    from esen_flows.network.backends.cpu.native import SOURCE as FORCE_CALLS
    from esen_flows.physics.lattice.transport.kernel import SOURCE as TRANSPORT

    yield "kernels", status(FORCE_CALLS), True
    yield "transport", status(TRANSPORT), True
    tuned = tune_allocator()
    yield "allocator", "glibc, tuned while computing" if tuned else "not glibc: cannot be tuned (slower on CPUs)", True


def _models() -> Iterator[tuple[str, str, bool]]:
    from esen_flows.schemas.card import list_cards, read_card, resolve_model

    for name in list_cards():
        try:
            yield f"model {name}", resolve_model(name).key[:12], True
        except EsenFlowsError as error:
            card = read_card(name)
            if card.source is not None:
                yield f"model {name}", f"not fetched: esen-flows models pull {name}", True
            elif card.recipes and card.checkpoint is None:
                yield f"model {name}", f"a recipe: esen-flows train {name}", True
            else:
                yield f"model {name}", str(error), False
