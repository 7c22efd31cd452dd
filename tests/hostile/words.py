"""Hostile words of the command line and variables of the environment."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

from hostile.mutations import NUMBERS, WORDS
from hostile.read_files import RELAX, SPOOL
from hostile.runner import Case


def command_lines(seeds: Path, random: Random) -> Iterator[Case]:
    """Options and arguments."""
    crystal = (seeds / "structures/a.extxyz").read_bytes()
    commands: list[tuple[list[str], list[str], dict[str, str | None]]] = [
        (["relax", "a.extxyz"], ["--model", "--set", "--dtype", "--device", "--output"], SPOOL),
        (
            ["phonon", "a.extxyz", "--model", "emt"],
            ["--set", "--protocol", "--born", "--lattice-backend", "--device"],
            SPOOL,
        ),
        (["kappa", "a.extxyz", "--model", "emt"], ["--set", "--protocol", "--born", "--dtype"], SPOOL),
        (["converge", "phonon", "a.extxyz", "--model", "emt"], ["--vary", "--set", "--protocol"], SPOOL),
        (
            ["query", "relax"],
            ["--where", "--formula", "--elements", "--spacegroup", "--sort", "--columns", "--limit", "--format"],
            {},
        ),
        (["show"], [""], {}),
        (["plot"], [""], {}),
        (["models", "show"], [""], {}),
        (["data", "info"], [""], {}),
        (["campaign", "status"], [""], {}),
        (["campaign", "report"], [""], {}),
        (["campaign", "diff", "x"], [""], {}),
        (
            ["worker", "--idle", "0"],
            ["--category", "--walltime", "--devices", "--processes", "--threads", "--margin", "--query", "--name"],
            {},
        ),
        (["launcher", "init"], ["", "--walltime", "--nodes", "--set"], {}),
        (["db", "export"], ["", "--where", "--kind", "--formula"], {}),
    ]
    sets = [
        f"{name}={value}"
        for name in (
            "mesh",
            "displacement.fc2_supercell",
            "displacement.fc3_supercell",
            "displacement.fc2_min_length_angstrom",
            "displacement.fc3_pair_cutoff_angstrom",
            "temperatures_kelvin",
            "band_points",
            "relax.max_steps",
            "displacement.displacement_angstrom",
            "displacement.symprec_angstrom",
            "boundary_mfp_micrometre",
            "cell_mask",
        )
        for value in ("1000000,1000000,1000000", "1e300", "-1", "nan", "[[[[", "0", "9" * 400, "{}", "1,2", "")
    ]
    walltimes = ["99999999999-00:00:00", "1e300", "-1", "0:00:00", "::", "1:99:99", "x", "9" * 500, "-0:0:1"]
    wheres = [
        "1=1",
        "kappa_300K > ",
        "__import__('os').mkdir('CANARY')",
        "(" * 5000,
        "a > 1e999",
        "x == {'$where': '1'}",
        "not " * 900,
    ]
    numbers = ["0", "-1", "100000", "1e9", "9" * 30, "nan", "inf", "1.5", "x"]
    for head, _, environment in commands[:4]:
        for text in sets:
            bad = text.endswith(("1000000", "nan", "[[[[", "{}", "=")) or text.endswith("9" * 40)
            yield Case("command line", text[:60], [*head, "--set", text], {"a.extxyz": crystal}, environment, bad)
    for text in walltimes:
        yield Case("command line", f"walltime {text[:20]}", ["worker", "--idle", "0", "--walltime", text], bad=True)
    for text in wheres:
        yield Case("command line", f"where {text[:20]}", ["query", "relax", "--where", text], bad=True)
    for option in ("--processes", "--threads"):
        for text in numbers:
            yield Case("command line", f"{option} {text[:20]}", ["worker", "--idle", "0", option, text], bad=True)
    while True:
        head, options, environment = random.choice(commands)
        arguments = list(head)
        for _ in range(random.choice((1, 1, 2))):
            option = random.choice(options)
            word = random.choice(
                (*NUMBERS, *WORDS, *sets, *walltimes, *wheres, "a.extxyz", "emt", "{}", "[]", "x=1:2:3", "a,b")
            )
            arguments += [option, word] if option else [word]
        if "\0" in "".join(arguments):
            continue
        yield Case("command line", " ".join(arguments)[:60], arguments, {"a.extxyz": crystal}, environment)


def environments(seeds: Path, random: Random) -> Iterator[Case]:
    """Environment variables."""
    crystal = (seeds / "structures/a.extxyz").read_bytes()
    names = (
        "MONGO_URI",
        "MONGO_URI_FILE",
        "READ_ONLY",
        "SPOOL",
        "SPOOL_DIR",
        "SPOOL_AFTER_SECONDS",
        "DATABASE",
        "DATA_DIR",
        "CACHE_DIR",
        "MONGOD",
        "MONGOD_IDLE_SECONDS",
        "SERVER_TIMEOUT_SECONDS",
        "MODEL_MIRROR",
        "THREADS",
        "NATIVE",
        "KEEP",
    )
    values = (
        "",
        " ",
        "x",
        "-1",
        "0",
        "nan",
        "inf",
        "1e300",
        "100000",
        "9" * 50,
        "/dev/null",
        "/dev/zero",
        "/proc/none",
        "a" * 5000,
        "mongodb://",
        "mongodb://u:secret@127.0.0.1:1/",
        "mongodb://[::1",
        "http://x",
        "a.b$c",
        "../..",
        "\udc80",
        "1,5",
    )
    commands = (
        ["doctor"],
        ["db", "status"],
        ["relax", "a.extxyz", *RELAX],
        ["query", "relax"],
        ["models"],
        ["worker", "--idle", "0"],
    )
    while True:
        name, value = random.choice(names), random.choice(values)
        environment: dict[str, str | None] = {f"ESEN_FLOWS_{name}": value, "ESEN_FLOWS_SERVER_TIMEOUT_SECONDS": "1"}
        if name == "SERVER_TIMEOUT_SECONDS":
            environment[f"ESEN_FLOWS_{name}"] = value
        command = random.choice(commands)
        if name in ("DATA_DIR", "MONGOD") and command[0] != "doctor":
            command = ["db", "status"]  # no server is started by a hostile setting
        yield Case(
            "environment", f"{name}={value[:20]!r} {command[0]}", list(command), {"a.extxyz": crystal}, environment
        )
