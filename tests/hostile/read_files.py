"""Hostile structure files, files of phonopy, cards, checkpoints and data, as a user gives them to a command."""

import gzip
import json
import lzma
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from hostile.mutations import BINARY, TEXT, change_value, gzip_bomb, mutate, plain_yaml
from hostile.runner import Case

SPOOL: dict[str, str | None] = {"ESEN_FLOWS_SPOOL": "1", "ESEN_FLOWS_SPOOL_DIR": "spooled"}
RELAX = ["--model", "emt", "--set", "max_steps=2", "--set", "fmax_ev_per_angstrom=1", "--output", "figures"]
SHOWN = ("package=", "builder=")  # names in a card that `models show` prints, and that only `relax` looks up
_LATTICE = 'Lattice="{0} 0 0 0 {0} 0 0 0 {0}" Properties=species:S:1:pos:R:3 pbc="T T T"'


def structures(seeds: Path, random: Random) -> Iterator[Case]:
    """Structure files by `relax`."""
    bad = {
        "huge cell.extxyz": f"1\n{_LATTICE.format('1e300')}\nCu 0 0 0\n",
        "large cell.extxyz": f"1\n{_LATTICE.format('1e9')}\nCu 0 0 0\n",
        "tiny cell.extxyz": f"1\n{_LATTICE.format('1e-300')}\nCu 0 0 0\n",
        "thin cell.extxyz": f"1\n{_LATTICE.format('0.3')}\nCu 0 0 0\n",
        "nan cell.extxyz": f"1\n{_LATTICE.format('nan')}\nCu 0 0 0\n",
        "far atom.extxyz": f"2\n{_LATTICE.format('4')}\nCu 0 0 0\nCu 1e300 0 0\n",
        "far atoms.extxyz": f"2\n{_LATTICE.format('4')}\nCu 0 0 0\nCu 1e12 0.5 0\n",
        "count.extxyz": f"1000000000\n{_LATTICE.format('4')}\nCu 0 0 0\n",
        "negative count.extxyz": f"-1\n{_LATTICE.format('4')}\n",
        "no atoms.extxyz": f"0\n{_LATTICE.format('4')}\n",
        "empty.cif": "",
        "empty.vasp": "",
        "zeros.cif": "\0" * 1000,
        "loop.cif": "data_x\nloop_\n" * 2000,
        "deep.json": "[" * 100_000,
        "xml.xml": "<!DOCTYPE x [<!ENTITY a 'a'>]><x>&a;</x>",
        "laughs.xml": "<!DOCTYPE l [<!ENTITY a 'aaaaaaaaaa'>"
        + "".join(f"<!ENTITY a{i} '{('&a' + (str(i - 1) if i else '') + ';') * 10}'>" for i in range(12))
        + "]><modeling>&a11;</modeling>",
        "code.py": "import os\nos.mkdir('CANARY')\n",
        "x.in": "calculation = 'x'\n",
        "unknown.zzz": "nothing that is known\n",
        "symm.cif": _cif("90", '\'__import__("os").mkdir("CANARY"),y,z\''),
        "angle.cif": _cif("1", "'x,y,z'"),
    }
    for name, text in bad.items():
        yield _relax(name.replace(" ", "_"), text.encode(), name, bad=True)
    for name in ("pickle.traj", "pickle.pkl", "bundle.traj", "numbers.npz", "a.db"):
        yield _relax(name, b"cos\nmkdir\n(S'CANARY'\ntR.", name, bad=True)
    yield _relax("zeros.cif.gz", gzip_bomb(b"#", 400), "a gzip bomb", bad=True)
    yield _relax("zeros.extxyz.gz", gzip_bomb(b"1\n", 400), "a gzip bomb", bad=True)
    yield _relax(
        "many.extxyz", f"300000\n{_LATTICE.format('400')}\n".encode() + b"Cu 0 0 0\n" * 300_000, "one place", bad=True
    )
    for name in (
        "/dev/zero",
        "/dev/null",
        "/",
        ".",
        "",
        "fifo",
        "gone.cif",
        "a.cif@",
        "a.cif@x",
        "a.cif@-1",
        "a.cif@10**9",
    ):
        case = _relax(
            "a.cif", (seeds / "structures/a.cif").read_bytes(), f"file {name!r}", bad=name not in ("a.cif@-1",)
        )
        case.arguments[1] = name
        if name == "fifo":
            case.prepare = lambda work: os.mkfifo(work / "fifo")
        yield case
    files = sorted((seeds / "structures").iterdir())
    while True:
        file = random.choice(files)
        kinds = BINARY if file.suffix == ".traj" else TEXT
        yield _relax(file.name, mutate(file.read_bytes(), random, kinds), f"changed {file.name}")


def _cif(alpha: str, operation: str) -> str:
    names = ("length_a 4", "length_b 4", "length_c 4", f"angle_alpha {alpha}", "angle_beta 90", "angle_gamma 90")
    cell = "".join(f"_cell_{name}\n" for name in names)
    loops = f"loop_\n_space_group_symop_operation_xyz\n{operation}\nloop_\n_atom_site_label\n"
    return f"data_x\n{cell}{loops}" + "".join(f"_atom_site_fract_{axis}\n" for axis in "xyz") + "Cu 0 0 0\n"


def _relax(name: str, content: bytes, what: str, *, bad: bool = False) -> Case:
    return Case("structures", what, ["relax", name, *RELAX], {name: content}, SPOOL, bad)


def born(seeds: Path, random: Random) -> Iterator[Case]:
    """Files of phonopy by `phonon --born`."""
    folder = seeds / "born"
    crystal = (folder / "CuAu.extxyz").read_bytes()
    good = (folder / "phonopy_params.yaml").read_text()

    def case(name: str, content: bytes, what: str, bad: bool = False) -> Case:
        arguments = ["phonon", "CuAu.extxyz", "--born", name, *RELAX[:2], "--set", "mesh=1,1,1", "--output", "figures"]
        arguments += [
            "--set",
            "displacement.fc2_supercell=1,1,1",
            "--set",
            "band_points=2",
            "--set",
            "relax.max_steps=1",
        ]
        return Case("born files", what, arguments, {name: content, "CuAu.extxyz": crystal}, SPOOL, bad)

    attacks = [
        "x: !!python/object/apply:os.mkdir [CANARY]",
        "[" * 100_000,
        "- " * 100_000,
        "a: &a [*a]",
        "",
        "1",
        "[1]",
        "\0",
        "unit_cell:\n  !!python/object/new:os.mkdir [CANARY]",
        "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"b{i}: &b{i} [{','.join(['*b' + str(i - 1) if i else '*a'] * 10)}]\n" for i in range(20)),
        good.replace("coordinates", "!!python/name:os.system"),
        good.replace("unit_cell", "cell"),
        good.replace("born_effective_charge", "charge"),
        good.replace("nac", "!!python/object:os.x"),
    ]
    for number, text in enumerate(attacks):
        for compress, end in ((bytes, ""), (gzip.compress, ".gz"), (lzma.compress, ".xz")):
            yield case(f"phonopy_params.yaml{end}", compress(text.encode()), f"attack {number} {end}", bad=True)
    yield case("bomb.yaml.gz", gzip_bomb(b"#", 1200), "a gzip bomb", bad=True)
    for line in (
        "",
        "14.4",
        "14.4\n1 0 0\n",
        "nan\n1 0 0 0 1 0 0 0 1\n",
        "1e999\n" + "0 " * 9 + "\n",
        "14.4\n" + "1e300 " * 9,
    ):
        yield case("BORN", line.encode(), "a BORN that is no BORN", bad=True)
    while True:
        if random.random() < 0.5:
            yield case("BORN", mutate((folder / "BORN").read_bytes(), random), "changed BORN")
        else:
            yield case("phonopy_params.yaml", mutate(good.encode(), random), "changed phonopy_params.yaml")


def cards(seeds: Path, random: Random) -> Iterator[Case]:
    """Model cards by `models show`, `models` and `relax`."""
    import yaml

    texts = {name: (seeds / "cards" / name / "card.yaml").read_bytes() for name in ("emt", "esen_nano")}
    crystal = (seeds / "structures/a.extxyz").read_bytes()

    def case(name: str, content: bytes, what: str, bad: bool = False) -> Case:
        command = random.choice((["models", "show", name], ["relax", "a.extxyz", *RELAX[2:], "--model", name]))
        files = {f"cards/{one}/card.yaml": text for one, text in texts.items()}
        files |= {f"cards/{name}/card.yaml": content, "a.extxyz": crystal}
        wrong = bad and not (command[0] == "models" and what.startswith(SHOWN))
        return Case("cards", what, command, files, SPOOL, wrong)

    for text in (
        "x: !!python/object/apply:os.mkdir [CANARY]",
        "[" * 100_000,
        "",
        "1",
        "[]",
        "a: &a [*a]",
        "\0",
        "name: emt",
    ):
        yield case("emt", text.encode(), f"YAML {text[:30]!r}", bad=True)
    documents = {name: yaml.safe_load(text) for name, text in texts.items()}
    for field in ("name", "family", "conservative", "elements", "equivariance", "licence", "package", "builder"):
        for value in (0, "x", [], {"x": 1}, "os.system", ["Qq"]):
            if (field, value) not in (("conservative", 0), ("elements", [])):
                yield case(
                    "emt",
                    plain_yaml({**documents["emt"], field: value}),
                    f"{field}={value!r}",
                    bad=field != "licence",
                )
    while True:
        name = random.choice(list(texts))
        if random.random() < 0.3:
            yield case(name, mutate(texts[name], random), "changed text")
        else:
            changed = change_value(documents[name], random)
            yield case(name, yaml.safe_dump(changed).encode("utf-8", "replace"), "changed value")


def checkpoints(seeds: Path, random: Random) -> Iterator[Case]:
    """Checkpoints by `relax --model` and `models convert`."""
    data = (seeds / "small.safetensors").read_bytes()
    crystal = (seeds / "structures/a.extxyz").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, tensors = json.loads(data[8 : 8 + length]), data[8 + length :]
    ours = json.loads(header["__metadata__"]["esen_flows"])

    def written(changed: Any, own: Any = None, weights: bytes = tensors) -> bytes:
        if isinstance(changed, dict) and own is not None:
            changed = {**changed, "__metadata__": {"esen_flows": json.dumps(own)}}
        text = json.dumps(changed).encode()
        return len(text).to_bytes(8, "little") + text + weights

    def case(content: bytes, what: str, bad: bool = False, name: str = "m.safetensors") -> Case:
        files = {name: content, "a.extxyz": crystal}
        if random.random() < 0.15:
            return Case(
                "checkpoints", what, ["models", "convert", name, "new.safetensors"], files, {}, True, "new.safetensors"
            )
        return Case("checkpoints", what, ["relax", "a.extxyz", "--model", name, *RELAX[2:]], files, SPOOL, bad)

    import numpy as np

    for what, weights in (("zero", b"\0" * len(tensors)), ("NaN", b"\xff" * len(tensors))):
        yield case(written(header, weights=weights), f"{what} weights", bad=True)
    for name in sorted(ours):
        for value in (None, 0, -1, "x", [], {}, 1e300, float("nan"), 10**12):
            yield case(written(header, {**ours, name: value}), f"{name}={value!r}", bad=name != "training")
    for name in sorted(ours["architecture"]):
        for value in (0, -1, 10**9, "x", 1e300, None):
            own = {**ours, "architecture": {**ours["architecture"], name: value}}
            yield case(written(header, own), f"architecture.{name}={value!r}", bad=True)
    for begin in (0, 2**63, 2**64 - 1, 10**9, 1):
        yield case(begin.to_bytes(8, "little") + data[8:], f"length {begin}", bad=True)
    pickles = (b"\x80\x04cos\nmkdir\n(S'CANARY'\ntR.", b"cos\nmkdir\n(S'CANARY'\ntR.", b"PK\x03\x04", b"")
    for content in pickles:
        for name in ("m.safetensors", "m.pt", "m.pth"):
            yield Case(
                "checkpoints",
                "a pickle",
                ["models", "convert", name, "new.safetensors"],
                {name: content},
                {},
                True,
                "new.safetensors",
            )
    assert np.frombuffer(tensors[: len(tensors) // 4 * 4], "<f4").size
    while True:
        how = random.random()
        if how < 0.35:
            yield case(written(header, change_value(ours, random)), "changed header")
        elif how < 0.6:
            yield case(written(change_value(header, random)), "changed tensor table")
        elif how < 0.8:
            yield case(mutate(data, random, BINARY), "changed bytes", bad=False)
        else:
            place = random.randrange(8 + length, len(data))
            yield case(data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :], "a bit of the weights", bad=True)


def datasets(seeds: Path, random: Random) -> Iterator[Case]:
    """Dataset folders by `data info`, `data check` and `train --estimate`."""
    folder = seeds / "data/dataset"
    good = {file.name: file.read_bytes() for file in folder.iterdir()}
    index = json.loads(good["index.json"])
    sizes = ("num_layers: 1", "lmax: 1", "mmax: 1", "sphere_channels: 4", "hidden_channels: 4", "edge_channels: 4")
    training = "\n".join((*sizes, "cutoff_angstrom: 3", "epochs: 1")).encode()

    def case(name: str, content: bytes | None, what: str, bad: bool = False) -> Case:
        commands = (
            ["data", "info", "d"],
            ["data", "check", "d"],
            ["train", "t.yaml", "--data", "d", "--folder", "run", "--estimate"],
        )
        files = {f"d/{one}": data for one, data in good.items() if one != name or content is not None}
        if content is not None:
            files[f"d/{name}"] = content
        command = list(random.choice(commands))
        wrong = bad and (name == "index.json" or command[1] != "info")  # which describes the index alone
        return Case("datasets", what, command, {**files, "t.yaml": training}, {}, wrong)

    for text in (b"", b"[]", b"1", b"{}", b"[" * 100_000, b"\0", b'{"format": "esen_flows dataset"}'):
        yield case("index.json", text, f"index {text[:20]!r}", bad=True)
    for name in index:
        for value in (None, -1, "x", [], {"x": 1}, 10**12):
            yield case("index.json", json.dumps({**index, name: value}).encode(), f"{name}={value!r}")
    for name in good:
        if name != "index.json":
            yield case(name, None, f"no {name}", bad=True)
            yield case(name, good[name][:-1], f"{name} cut", bad=True)
            yield case(name, b"\x93NUMPY\x01\x00" + b"\xff" * 100, f"{name} with a false header", bad=True)
            header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"
            pickled = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"cos\nmkdir\n(S'CANARY'\ntR."
            yield case(name, pickled, f"{name} with a pickle", bad=True)
            vast = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,), }\n"
            yield case(name, b"\x93NUMPY\x01\x00" + len(vast).to_bytes(2, "little") + vast, f"vast {name}", bad=True)
    while True:
        if random.random() < 0.5:
            yield case("index.json", json.dumps(change_value(index, random)).encode(), "changed index")
        else:
            name = random.choice(sorted(good))
            yield case(name, mutate(good[name], random, BINARY), f"changed {name}")


def imports(seeds: Path, random: Random) -> Iterator[Case]:
    """Labelled files by `data import`."""
    files = {name: (seeds / "data" / name).read_bytes() for name in ("frames.extxyz", "frames.traj", "frames.json")}

    def case(name: str, content: bytes, what: str, bad: bool = False, *options: str) -> Case:
        arguments = ["data", "import", name, "--output", "made", *options]
        return Case("labelled files", what, arguments, {name: content}, {}, bad, "made")

    for name in (
        "a.extxyz",
        "a.h5",
        "a.lmdb",
        "a.aselmdb",
        "a.json",
        "vasprun.xml",
        "OUTCAR",
        "a.db",
        "a.zip",
        "a.tar",
        "a.traj",
        "a.npz",
    ):
        for content in (b"", b"\0" * 5000, b"cos\nmkdir\n(S'CANARY'\ntR.", b"[" * 100_000):
            yield case(name, content, f"{name} is {content[:12]!r}", True)
    for option in (
        "--energy-key",
        "--stress-key",
        "--group-key",
        "--cutoff",
        "--max-force",
        "--energy-unit",
        "--format",
    ):
        for word in ("", "nan", "-1", "1e300", "x", "\ud800", "a" * 3000):
            yield case("frames.extxyz", files["frames.extxyz"], f"{option} {word[:9]!r}", False, option, word)
    while True:
        name = random.choice(sorted(files))
        kinds = BINARY if name.endswith("traj") else TEXT
        yield case(name, mutate(files[name], random, kinds), f"changed {name}")
