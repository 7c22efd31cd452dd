"""Hostile specifications, recipes, frozen campaigns, spools and archives."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from hostile.mutations import BINARY, VALUES, change_value, gzip_bomb, mutate, plain_yaml
from hostile.runner import CAMPAIGNS, EVERYTHING, Case


def specs(seeds: Path, random: Random) -> Iterator[Case]:
    """Specifications by `campaign plan`."""
    import yaml

    folder = seeds / "specs"
    metals, good = (folder / "metals.extxyz").read_bytes(), (folder / "spec.yaml").read_bytes()
    document = yaml.safe_load(good)

    def case(content: bytes, what: str, bad: bool = False, xyz: bytes = metals) -> Case:
        files = {"spec.yaml": content, "metals.extxyz": xyz}
        return Case("specifications", what, ["campaign", "plan", "spec.yaml"], files, {}, bad, unchanged=CAMPAIGNS)

    settings: dict[str, Any] = {
        "mesh": [[10**6] * 3, [0, 1, 1], [2**63, 1, 1], "x", [2, 2], float("nan"), [1e300, 1, 1], [1000, 1000, 1000]],
        "displacement.fc2_supercell": [[10**6] * 3, [100, 100, 100], [-1, -1, -1], [[1, 0], [0, 1]], [2**70, 1, 1]],
        "displacement.fc2_min_length_angstrom": [1e300, 1e6, float("inf"), -1],
        "displacement.displacement_angstrom": [1e300, 0, -1, float("nan")],
        "displacement.symprec_angstrom": [1e300, float("nan"), -1, 1e9],
        "band_points": [10**12, 0, 2**64],
        "temperatures_kelvin": [[1e400], [-1], [1e300], list(range(10**5)), []],
        "relax.max_steps": [10**12, 0, 2**64],
        "relax.fmax_ev_per_angstrom": [1e300, float("nan")],
        "imaginary_tolerance_thz": [1e300, -1],
    }
    for name, values in settings.items():
        for value in values:
            bad = {**document, "settings": {**document["settings"], name: value}}
            yield case(plain_yaml(bad), f"{name}={str(value)[:30]}", bad=True)
    texts = [
        "x: !!python/object/apply:os.mkdir [CANARY]",
        "[" * 100_000,
        "a: &a [*a]",
        "\0",
        "",
        "[]",
        "1",
        "name: x\nname: y",
        "name: 2001-99-99",
        "? [1]\n: 2",
        "<<: [1]",
        "name: " + "9" * 5000,
        "&a name: *a",
        "name: !!binary x",
    ]
    for text in texts:
        yield case(text.encode(), f"YAML {text[:30]!r}", bad=True)
    for value in ("../../x", "x" * 100, "a b", "", "$x", ".", "a/b", "\u202e"):
        yield case(plain_yaml({**document, "name": value}), f"name {value!r}", bad=True)
    for value in ([], ["gone.extxyz"], ["/dev/zero"], ["/"], "spec.yaml", ["metals.extxyz@99"], [None], {"x": 1}):
        yield case(plain_yaml({**document, "structures": {"file": value}}), f"file {value!r}", bad=True)
    while True:
        how = random.random()
        if how < 0.35:
            yield case(mutate(good, random), "changed text")
        elif how < 0.85:
            yield case(yaml.safe_dump(change_value(document, random)).encode("utf-8", "replace"), "changed value")
        else:
            yield case(good, "changed structures", xyz=mutate(metals, random))


def recipes(seeds: Path, random: Random) -> Iterator[Case]:
    """Recipes by `label`."""
    import yaml

    good = (seeds / "data/recipe.yaml").read_bytes()
    document = yaml.safe_load(good)

    def case(content: bytes, what: str, bad: bool = False) -> Case:
        arguments = ["label", "recipe.yaml", "--output", "labelled.extxyz", "--model", "emt"]
        return Case("recipes", what, arguments, {"recipe.yaml": content}, {}, bad, "labelled.extxyz")

    group = document["groups"][0]
    fields: dict[str, list[Any]] = {
        "count": [10**12, -1, 0, 2**64, 1.5, "x", None, float("nan")],
        "lattice_angstrom": [[1e300, 1e300], [0, 0], [-1, 1], [float("nan")] * 2, [4, 3], "x", [], [1e-9, 1e-9]],
        "rattle_angstrom": [[1e300, 1e300], [-1, 0], [float("nan")] * 2, "x", [50, 60]],
        "volume_strain": [[1e300, 1e300], [-2, -1], [float("nan")] * 2, "x", [5, 4]],
        "shear": [[1e300, 1e300], [float("nan")] * 2, "x"],
        "prototype": ["x", "", None, ["rocksalt"] * 2, "../x"],
        "species": [["Qq"], [], ["Cu"] * 50, "Cu", [None, None], [29, 79], ["Cu"]],
        "repeat": [[10**6] * 3, [0, 0, 0], [-1, 1, 1], "x", [1000, 1000, 1]],
        "displaced_atoms": [10**9, -1, "x"],
        "snapshots": [10**12, -1, "x"],
        "name": [None, 1],
    }
    for name, values in fields.items():
        for value in values:
            changed = {**document, "groups": [{**group, name: value}]}
            yield case(plain_yaml(changed), f"{name}={str(value)[:30]}", bad=True)
    for text in ("x: !!python/object/apply:os.mkdir [CANARY]", "[" * 100_000, "", "1", "seed: -1", "groups: {}"):
        yield case(text.encode(), f"YAML {text[:30]!r}", bad=True)
    many = [{**group, "name": f"g{i}"} for i in range(20_000)]
    yield case(plain_yaml({**document, "groups": many}), "groups", bad=True)
    while True:
        if random.random() < 0.5:
            yield case(mutate(good, random), "changed text")
        else:
            yield case(yaml.safe_dump(change_value(document, random)).encode("utf-8", "replace"), "changed value")


def manifests(seeds: Path, random: Random) -> Iterator[Case]:
    """Frozen campaigns by `campaign reproduce --here`."""
    folder = seeds / "frozen"
    good = json.loads((folder / "manifest.json").read_text())
    rows = {
        name: [json.loads(line) for line in gzip.decompress((folder / name).read_bytes()).splitlines()]
        for name in ("structures.jsonl.gz", "members.jsonl.gz")
    }
    count = iter(range(10**9))

    def case(what: str, manifest: Any = good, bad: bool = False, raw: bytes | None = None, **lines: bytes) -> Case:
        files = {f"frozen/{name}": (folder / name).read_bytes() for name in rows}
        if isinstance(manifest, dict):
            manifest = dict(manifest)
        for name, content in lines.items():
            packed = gzip.compress(content) if name in ("structures", "members") else content
            name = name.removesuffix("_raw")
            files[f"frozen/{name}.jsonl.gz"] = packed
            if isinstance(manifest, dict) and isinstance(manifest.get(name), dict):
                manifest[name] = {**manifest[name], "sha256": hashlib.sha256(packed).hexdigest()}
        files["frozen/manifest.json"] = json.dumps(manifest).encode() if raw is None else raw
        arguments = ["campaign", "reproduce", "frozen", "--name", f"h{os.getpid()}-{next(count)}", "--here"]
        return Case("manifests", what, arguments, files, {}, bad, unchanged=EVERYTHING if bad else ())

    def joined(found: list[Any]) -> bytes:
        return "".join(json.dumps(row) + "\n" for row in found).encode()

    members, crystals = rows["members.jsonl.gz"], rows["structures.jsonl.gz"]
    yield case("no members", members=b"", bad=True)
    yield case("a member less", members=joined(members[1:]), bad=True)
    yield case("a member twice", members=joined([*members, members[0]]), bad=True)
    yield case("no structures", structures=b"", bad=True)
    yield case("a structure less", structures=joined(crystals[1:]), bad=True)
    yield case("a structure twice", structures=joined([*crystals, crystals[0]]), bad=True)
    yield case("members that are none", members=b"1\n", bad=True)
    yield case("members that are no JSON", members=b"{\n", bad=True)
    yield case("a gzip bomb", members_raw=gzip_bomb(b"\n", 400), bad=True)
    yield case("a gzip that is cut", members_raw=gzip.compress(joined(members))[:50], bad=True)
    yield case("no gzip", members_raw=b"x", bad=True)
    for text in (
        "",
        "[]",
        "1",
        "[" * 100_000,
        "{",
        '{"format_version": 1}',
        '{"format_version": "x"}',
        '{"format_version": NaN}',
        "\0",
    ):
        yield case(f"manifest {text[:20]!r}", raw=text.encode(), bad=True)
    for name in ("../../etc/passwd", "/dev/zero", "manifest.json", "", None):
        yield case(f"file {name!r}", {**good, "members": {**good["members"], "file": name}}, bad=True)
    for number in (0, -1, 10**9, None, "three", 2.5):
        yield case(f"count {number!r}", {**good, "members": {**good["members"], "count": number}}, bad=True)
    while True:
        how = random.random()
        if how < 0.4:
            yield case("changed manifest", change_value(good, random))
        elif how < 0.5:
            yield case("changed bytes", raw=mutate((folder / "manifest.json").read_bytes(), random))
        elif how < 0.75:
            changed = [change_value(row, random) if random.random() < 0.5 else row for row in members]
            yield case("changed members", members=joined(changed))
        else:
            changed = [change_value(row, random) if random.random() < 0.5 else row for row in crystals]
            yield case("changed structures", structures=joined(changed))


def spools(seeds: Path, random: Random) -> Iterator[Case]:
    """Spools by `db ingest`."""
    (folder,) = (seeds / "spool").iterdir()
    blobs = {f"spool/a/blobs/{file.name}": file.read_bytes() for file in (folder / "blobs").iterdir()}
    lines = (folder / "records.jsonl").read_bytes().splitlines()
    documents = [json.loads(line)["record"] for line in lines]

    def signed(document: Any) -> bytes:
        text = document if isinstance(document, bytes) else json.dumps(document).encode()
        return b'{"sha256":"%s","record":%s}\n' % (hashlib.sha256(text).hexdigest().encode(), text)

    def case(content: bytes, what: str, bad: bool = False, arrays: dict[str, bytes] | None = None) -> Case:
        files = {"spool/a/records.jsonl": content, **(blobs if arrays is None else arrays)}
        return Case("spools", what, ["db", "ingest", "spool"], files, {}, bad, fresh=True)

    good = b"".join(line + b"\n" for line in lines)
    for value in (*VALUES, b"", b"[" * 100_000, b"nul", b'{"a":1,"a":2}', b"\xff"):
        try:
            yield case(signed(value) + good, f"record {str(value)[:40]}", bad=True)
        except ValueError:
            continue
    for name in ("type", "row", "forced"):
        for value in (None, 1, [], {}, "x", "structure"):
            yield case(good + signed({**documents[1], name: value}), f"{name}={value!r}", bad=True)
    yield case(good, "no arrays", bad=True, arrays={})
    yield case(good, "damaged arrays", bad=True, arrays={name: data[:-1] for name, data in blobs.items()})
    yield case(b"\0" * 10**6, "zeros", bad=True)
    yield case(good * 3, "each record three times")
    while True:
        how = random.random()
        if how < 0.7:
            changed = [change_value(document, random) if random.random() < 0.4 else document for document in documents]
            yield case(b"".join(map(signed, changed)), "changed records")
        elif how < 0.9:
            yield case(mutate(good, random), "changed bytes")
        else:
            yield case(
                good, "changed arrays", arrays={name: mutate(data, random, BINARY) for name, data in blobs.items()}
            )


def archives(seeds: Path, random: Random) -> Iterator[Case]:
    """Archives by `db import`."""
    original = (seeds / "archive.tar").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(original)) as tar:
        members = {one.name: tar.extractfile(one).read() for one in tar.getmembers()}  # type: ignore[union-attr]
    members.pop("checksums.json")
    jsonl = [name for name in members if name.endswith(".jsonl")]

    def packed(found: dict[str, bytes], checksums: Any = None) -> bytes:
        sums = {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, data in {
                **found,
                "checksums.json": json.dumps(sums if checksums is None else checksums).encode(),
            }.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return buffer.getvalue()

    def case(content: bytes, what: str, bad: bool = False) -> Case:
        return Case("archives", what, ["db", "import", "a.tar"], {"a.tar": content}, {}, bad, unchanged=EVERYTHING)

    for text in (b"", b"x", b"\0" * 10240, gzip.compress(original), original[:1000], original[: len(original) // 2]):
        yield case(text, "no archive", bad=True)
    for name in ("../CANARY", "/tmp/CANARY", "results/x.jsonl", "blobs/" + "0" * 64 + ".npy", "x" * 300):
        yield case(packed({**members, name: b"{}\n"}), f"a member {name[:40]!r}", bad=True)
    for sums in (None, {}, [], 1, {"manifest.json": 1}, dict.fromkeys(members, "0" * 64)):
        if sums is not None:
            yield case(packed(members, sums), f"checksums {str(sums)[:30]}", bad=True)
    for name in ("manifest.json", *jsonl):
        for value in VALUES:
            try:
                yield case(
                    packed({**members, name: json.dumps(value).encode() + b"\n"}),
                    f"{name} is {str(value)[:30]}",
                    bad=True,
                )
            except ValueError:
                continue
    while True:
        if random.random() < 0.12:
            yield case(mutate(original, random, BINARY), "changed bytes")
            continue
        name = random.choice(jsonl)
        rows = [json.loads(line) for line in members[name].splitlines()]
        place = random.randrange(len(rows))
        rows[place] = change_value(rows[place], random)
        yield case(
            packed({**members, name: b"".join(json.dumps(row).encode() + b"\n" for row in rows)}), f"changed {name}"
        )
