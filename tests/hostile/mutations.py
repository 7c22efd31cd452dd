"""Changes of valid files by a random generator: bytes, lines, numbers, and values inside of documents."""

import copy
import gzip
from functools import cache
from random import Random
from typing import Any

import yaml

NUMBERS = (
    "nan",
    "inf",
    "-inf",
    "1e300",
    "-1e300",
    "1e-300",
    "0",
    "-1",
    "-0.0",
    "1e400",
    "99999999999999999999",
    "2147483648",
    "1.5",
    "0x10",
    "1_000",
    "1d0",
    "1,5",
    "",
    "?",
    ".",
    "NaN",
    "1e",
    "--1",
    "\u0661",
    "1e5",
)
WORDS = (
    "",
    " ",
    "\0",
    "\n",
    "Qq",
    "X",
    "../../../etc/passwd",
    "/dev/zero",
    "/proc/self/mem",
    "$(touch CANARY)",
    "`touch CANARY`",
    "{0.__class__}",
    "%s%s%n",
    "\u202e\u0000",
    "\ud800",
    "a" * 5000,
    "é" * 300,
    "None",
    "true",
    "__import__('os').mkdir('CANARY')",
    "!!python/object/apply:os.mkdir [CANARY]",
    "{{7*7}}",
    "-",
    "--help",
    "~",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    10**6,
    10**9,
    2**31,
    2**63,
    -(2**63) - 1,
    10**30,
    1e300,
    -1e300,
    float("nan"),
    float("inf"),
    "",
    "x",
    "nan",
    [],
    {},
    [[]],
    [None],
    {"x": 1},
    {"$oid": "x"},
    {"$date": {"$numberLong": "99999999999999999"}},
    {"$numberLong": "99999999999999999999"},
    {"$numberDecimal": "1E6000"},
    {"$binary": {"base64": "?", "subType": "00"}},
    {"$regularExpression": {"pattern": "(a+)+$", "options": ""}},
    {"$code": "1"},
    {"$minKey": 1},
    {"$undefined": True},
    {"$timestamp": {"t": -1, "i": 2**40}},
    {"$uuid": "x"},
    {"$ref": "a", "$id": 1},
    {"__array__": 1},
    {"__blob__": "x"},
    {"__array__": 1, "dtype": "O", "shape": [1], "data": {"$binary": {"base64": "AAAA", "subType": "00"}}},
    {"__array__": 1, "dtype": "<f8", "shape": [10**18], "data": {"$binary": {"base64": "", "subType": "00"}}},
    {"__blob__": "0" * 64, "dtype": "<f8", "shape": [-1]},
    [0] * 3000,
    "a" * 100_000,
    [[[[[[[[1]]]]]]]],
)


def flip_bytes(data: bytes, random: Random) -> bytes:
    """Some bytes of other values."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 8)):
        if changed:
            changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def cut(data: bytes, random: Random) -> bytes:
    """The beginning of a file."""
    return data[: random.randrange(len(data) + 1)]


def splice(data: bytes, random: Random) -> bytes:
    """A piece twice, left out, or replaced by zeros."""
    begin = random.randrange(len(data) + 1)
    end = min(len(data), begin + random.randint(1, 200))
    middle = random.choice((data[begin:end] * 2, b"", b"\0" * (end - begin), b"[" * 5000, b"\xff\xfe"))
    return data[:begin] + middle + data[end:]


def change_line(data: bytes, random: Random) -> bytes:
    """A line twice, left out, exchanged with another, or with other words."""
    lines = data.split(b"\n")
    first, second = random.randrange(len(lines)), random.randrange(len(lines))
    how = random.randrange(4)
    if how == 0:
        lines.insert(first, lines[second])
    elif how == 1:
        del lines[first]
    elif how == 2:
        lines[first], lines[second] = lines[second], lines[first]
    else:
        words = lines[first].split(b" ")
        words[random.randrange(len(words))] = random.choice(NUMBERS + WORDS).encode("utf-8", "surrogatepass")
        lines[first] = b" ".join(words)
    return b"\n".join(lines)


def change_number(data: bytes, random: Random) -> bytes:
    """A word that begins with a digit, replaced by a number that is hard to take."""
    words = data.split(b" ")
    places = [i for i, word in enumerate(words) if word[:1].isdigit() or word[:1] == b"-"]
    if not places:
        return change_line(data, random)
    words[random.choice(places)] = random.choice(NUMBERS).encode()
    return b" ".join(words)


TEXT = (flip_bytes, cut, splice, change_line, change_line, change_number, change_number, change_number)
BINARY = (flip_bytes, cut, splice)


def mutate(data: bytes, random: Random, kinds: Any = TEXT) -> bytes:
    """One to three changes."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        data = random.choice(kinds)(data, random)
    return data


def places_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to all values inside of a document."""
    found = [path] if path else []
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        found += places_of(item, (*path, name))
    return found


def change_value(document: Any, random: Random) -> Any:
    """A document in which a value is another one, is missing, has another name, or has a neighbour."""
    document = copy.deepcopy(document)
    places = places_of(document)
    if not places or random.random() < 0.03:
        return random.choice(VALUES)
    # Shallow places as often as deep ones: most places are numbers in arrays.
    depth = random.choice(sorted({len(place) for place in places}))
    *path, last = random.choice([place for place in places if len(place) == depth])
    holder = document
    for name in path:
        holder = holder[name]
    how = random.random()
    if how < 0.7:
        holder[last] = copy.deepcopy(random.choice(VALUES))
    elif how < 0.85:
        del holder[last]
    elif isinstance(holder, dict):
        holder[random.choice(("$set", "a.b", "x", "_id", "", "\0", "__array__"))] = holder[last]
    else:
        holder.append(holder[last])
    return document


@cache
def gzip_bomb(content: bytes, megabytes: int) -> bytes:
    """A gzip file of `content` and many megabytes of spaces, made of equal members, because one would take seconds."""
    return gzip.compress(content) + gzip.compress(b" " * 4_000_000) * (megabytes // 4)


def plain_yaml(value: Any) -> bytes:
    """YAML of plain values by libyaml where it is installed: a long list takes the dumper in Python seconds."""
    return yaml.dump(value, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper)).encode()
