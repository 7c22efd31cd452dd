"""The documentation site: it builds without a warning, fetches nothing, and describes every public parameter."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import griffe
import pytest
from test_docstrings import has_help, load, public_members

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    # Where a network is asked for, the build fails.
    blocked = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, **blocked, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return folder


class Page(HTMLParser):
    """What a page holds: addresses that it loads, described names of each object, titles of its blocks.

    Attributes
    ----------
    loads
        Addresses of scripts, styles, images, fonts and frames.
    described
        Names in the lists below an object of the API with their descriptions, by the object's identifier.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.described: dict[str, dict[str, str]] = {}
        self._object, self._name, self._in_name, self._in_text = "", "", False, 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        classes = attributes.get("class", "").split()
        if tag in ("script", "img", "iframe", "source") and "src" in attributes:
            self.loads.append(attributes["src"])
        if tag == "link" and attributes.get("rel") in ("stylesheet", "icon", "preconnect", "preload"):
            self.loads.append(attributes["href"])
        if "doc-heading" in classes:
            self._object = attributes.get("id", "")
        if "doc-section-item" in classes:
            self._name, self._in_text = "", 0
        elif tag == "b" and not self._name:
            self._in_name = True
        elif "doc-md-description" in classes:
            self._in_text = 1
        elif self._in_text and tag == "div":
            self._in_text += 1

    def handle_endtag(self, tag: str) -> None:
        if tag == "b":
            self._in_name = False
        if tag == "div" and self._in_text:
            self._in_text -= 1

    def handle_data(self, data: str) -> None:
        if self._in_name:
            self._name += data.strip()
        elif self._in_text and self._name:
            names = self.described.setdefault(self._object, {})
            names[self._name] = names.get(self._name, "") + data.strip()


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {path.relative_to(site).as_posix(): Page(path) for path in sorted(site.rglob("*.html"))}


def test_nothing_is_fetched(site: Path, pages: dict[str, Page]) -> None:
    away = {f"{name}: {address}" for name, page in pages.items() for address in page.loads if "//" in address}
    assert not away
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//[^)\"']+", styles)


def test_every_page_is_in_the_navigation(site: Path) -> None:
    home = (site / "index.html").read_text(encoding="utf-8")
    assert "comparison.html" in home
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").is_file()


def parameters(package: griffe.Module) -> Iterator[tuple[str, str]]:
    """Every public object with the names of its parameters, except options of commands."""
    for found in public_members(package):
        function = found
        if isinstance(found, griffe.Class) and "__init__" in found.members:
            function = found.members["__init__"]
        if isinstance(function, griffe.Function):
            for parameter in function.parameters:
                if parameter.name not in ("self", "cls") and not has_help(parameter):
                    yield found.path, parameter.name.lstrip("*")


def test_every_public_parameter_is_described(pages: dict[str, Page]) -> None:
    described = {name: names for page in pages.values() for name, names in page.described.items()}
    wanted = list(parameters(load(ROOT)))
    assert len(wanted) > 2000
    missing = [
        f"{path}: {name}"
        for path, name in wanted
        if not {key.lstrip("*"): text for key, text in described.get(path, {}).items()}.get(name)
    ]
    assert not missing, "\n".join([f"{len(missing)} of {len(wanted)} parameters", *missing])


def test_commands_that_no_test_runs_are_marked(site: Path) -> None:
    for page in (site / "installation.html", site / "properties.html", site / "launchers/slurm_gpu/index.html"):
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r'<div class="language-bash highlight">(.{0,120})', text, flags=re.DOTALL)
        assert blocks
        assert all("Not run by the tests" in block for block in blocks), page.name
    marked = [path.stem for path in (site / "tutorials").glob("*.html") if "Not run by the tests" in path.read_text()]
    assert marked == ["campaign"]  # its commands of SLURM
