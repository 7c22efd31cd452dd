"""`esen-flows doctor`: what is installed and would be used; starts nothing and prints no secrets."""

import os
import platform
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Literal

import typer
from rich.table import Table
from rich.text import Text

from esen_flows.cli.output.json_output import JsonOption, print_json
from esen_flows.cli.output.tables import show
from esen_flows.errors import EsenFlowsError
from esen_flows.files import free_bytes
from esen_flows.settings import get_settings
from esen_flows.version import __version__

Level = Literal["ok", "warning", "error"]
Finding = tuple[str, str, Level]
_STYLES: dict[Level, str] = {"ok": "green", "warning": "yellow", "error": "red"}


def doctor(as_json: JsonOption = False) -> None:
    """Report versions, database, devices, threads, allocator and models, each as ok, warning or error.

    The exit status is 1 if there is an error: something without which nothing can be computed or stored.
    """
    found = list(_checks())
    counts = Counter(level for _, _, level in found)
    if as_json:
        print_json([dict(zip(("what", "found", "level"), each, strict=True)) for each in found])
    table = Table("", "what", "found")
    for name, value, level in found:
        table.add_row(Text(level, style=_STYLES[level]), name, value)
    if not as_json:
        show(table)
        typer.echo(f"{counts['error']} errors, {counts['warning']} warnings")
    if counts["error"]:
        raise typer.Exit(1)


def _checks() -> Iterator[Finding]:
    """Name, finding and level of every line."""
    from esen_flows.schemas.provenance import git_revision, library_versions

    revision = git_revision()
    yield "esen_flows", f"{__version__} ({revision})" if revision else __version__, "ok"
    yield "python", f"{platform.python_version()} ({sys.executable})", "ok"
    yield "machine", f"{platform.platform()}, {os.cpu_count()} CPUs", "ok"
    for library, version in library_versions().items():
        yield library, version, "ok"
    yield from _database()
    yield from _compute()
    yield from _models()


def _database() -> Iterator[Finding]:
    settings = get_settings()
    yield "database", settings.database, "ok"
    if settings.mongo_uri is not None:
        yield "server", "that of ESEN_FLOWS_MONGO_URI (not shown, it may hold a password)", "ok"
        return
    from esen_flows.store.host import Host
    from esen_flows.store.server.embedded import status
    from esen_flows.store.server.layout import Layout, full_disk
    from esen_flows.store.server.mongod import find_mongod

    try:
        mongod = find_mongod(settings.mongod)
        yield "mongod", f"{mongod.version} ({mongod.binary})", "ok"
    except EsenFlowsError as error:
        yield "mongod", str(error), "error"
    if Host().lacks_avx():
        yield "processor", "no AVX: mongod 5 and later cannot run here; set ESEN_FLOWS_MONGO_URI", "error"
    network = Host().network_file_system(settings.data_dir)
    note = f" is on a network file system ({network[0]}); set ESEN_FLOWS_DATA_DIR to a local disk" if network else ""
    yield "data", f"{settings.data_dir}{note}", "error" if network else "ok"
    lack = full_disk(Layout.of(settings.data_dir))
    free = free_bytes(settings.data_dir)
    words = lack or ("unknown" if free is None else f"{free / 1e9:.1f} GB for the data folder")
    yield "free space", words, "ok" if lack is None else "error"
    yield "server", "running" if status(settings)["running"] else "not running; starts when it is needed", "ok"


def _compute() -> Iterator[Finding]:
    from esen_flows.cli.machine import tune_allocator

    try:
        import torch
    except ImportError as error:
        yield "torch", f"cannot be imported: {error}", "error"
        return
    yield "threads", f"{torch.get_num_threads()} (ESEN_FLOWS_THREADS, OMP_NUM_THREADS)", "ok"
    devices = ["cpu", *(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))]
    yield "devices", ", ".join(devices), "ok"
    from esen_flows.native import status
    from esen_flows.network.backends.cpu.native import SOURCE as FORCE_CALLS
    from esen_flows.physics.lattice.transport.kernel import SOURCE as TRANSPORT

    for name, source in (("kernels", FORCE_CALLS), ("transport", TRANSPORT)):
        found = status(source)
        yield name, found, "warning" if found.startswith("no ") else "ok"
    tuned = tune_allocator()
    words = "glibc, tuned while computing" if tuned else "not glibc: cannot be tuned (slower on CPUs)"
    yield "allocator", words, "ok" if tuned else "warning"


def _models() -> Iterator[Finding]:
    """The model cards; a force field that is optional and absent is no fault."""
    from esen_flows.forcefield.environments import is_installed
    from esen_flows.schemas.card import list_cards, read_card, resolve_model

    for name in list_cards():
        card = read_card(name)
        try:
            key = resolve_model(name).key
            if card.calculator is not None and not is_installed(card):
                yield f"model {name}", f"optional, not installed: esen-flows models install {name}", "ok"
            else:
                yield f"model {name}", key[:12], "ok"
        except EsenFlowsError as error:
            if card.package is not None and not card.is_installed:
                yield f"model {name}", f"optional, not installed: {card.install_command}", "ok"
            elif card.source is not None:
                yield f"model {name}", f"optional, not fetched: esen-flows models pull {name}", "ok"
            elif card.recipes and card.checkpoint is None:
                yield f"model {name}", f"a recipe: esen-flows train {name}", "ok"
            else:  # a checkpoint that is missing or damaged; the others can be used
                yield f"model {name}", str(error), "warning"
