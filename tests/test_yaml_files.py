"""YAML of any origin: plain values alone, within limits."""

import bz2
import gzip
import lzma
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from esen_flows.errors import InputError
from esen_flows.yaml_files import YamlError, plain_value, read_yaml

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)
# Pieces of the grammar, so that what is drawn is often nearly YAML.
PIECES = st.lists(
    st.sampled_from(
        [
            "[", "]", "{", "}", "a", "b: ", "- ", ": ", "\n", "  ", "&x ", "*x", "!!", "!!python/name:os.system ",
            "!!int ", "!!timestamp ", "<<: ", "|\n", "'", '"', "#", "1e9", "0x", "2001-99-99", "%TAG", "---\n", "...",
            "\t", "\0", "\ud800",
        ]
    ),
    max_size=30,
).map("".join)  # fmt: skip


@given(VALUES)
def test_what_yaml_writes_is_read_again(value: object) -> None:
    assert plain_value(yaml.safe_dump(value)) == value


@given(PIECES)
def test_any_text_is_a_value_or_one_kind_of_error(text: str) -> None:
    with suppress(YamlError):
        plain_value(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x: !!python/object/apply:os.system ['touch CANARY']", "names a Python object"),
        ("x: !!python/name:os.system", "names a Python object"),
        ("x: !<tag:yaml.org,2002:python/object/apply:os.system> ['touch CANARY']", "names a Python object"),
        ("%TAG ! tag:yaml.org,2002:python/\n---\nx: !name:os.system", "names a Python object"),
        ("x: !ours {}", "names the type '!ours'"),
        ("[" * 50_000, "nested more than 100 deep"),
        ("- " * 50_000, "nested more than 100 deep"),
        ("a: &a [" + "1, " * 1000 + "]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(500)), "repeat"),
        ("a: &a [*a]", "repeats itself"),
        ("a: *b", "no anchor before it"),
        ("a: 2001-99-99", "month"),
        ("a: " + "9" * 10_000, "digits"),
        ("? [1, 2]\n: 3", "unhashable"),
    ],
)
def test_hostile_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(YamlError, match=words.replace("*", r"\*")):
        plain_value(text, most_values=100_000)
    assert not list(tmp_path.iterdir())


def test_aliases_multiply(tmp_path: Path) -> None:
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30))
    with pytest.raises(YamlError, match="with those that aliases repeat"):
        plain_value(laughs)
    assert plain_value("a: &a {b: 1}\nc: {<<: *a, d: 2}") == {"a": {"b": 1}, "c": {"b": 1, "d": 2}}


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_compressed_files(tmp_path: Path, compress: "type[bytes]") -> None:
    path = tmp_path / "values"
    path.write_bytes(compress(b"a: [1, 2.5]\n"))
    assert read_yaml(path) == {"a": [1, 2.5]}
    path.write_bytes(compress(b"#" * 2_000_000))
    with pytest.raises(InputError, match=r"values holds more than 1 MB"):
        read_yaml(path, most_bytes=1_000_000)
    path.write_bytes(compress(b"a: [1, 2.5]\n" * 10)[:-9])
    if compress is not bytes:
        with pytest.raises(InputError, match="damaged or cut off"):
            read_yaml(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_yaml(tmp_path / "none.yaml")
