"""What the site adds to docs/: the API reference, pages of other folders, links that fit, marks on commands."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import esen_flows

ROOT = Path(__file__).resolve().parents[1]
NEW_PAGES = "How-tos"  # the section of pages that the navigation does not name
PAGES_ELSEWHERE = ("CHANGELOG.md", "CONTRIBUTING.md", "launchers/README.md", "launchers/*/README.md")
IMAGES_ELSEWHERE = ("benchmarks/results/*.png",)
NOT_RUN = "Not run by the tests"
FENCED = re.compile(r"^( *)(```+)[^\n]*\n.*?^\1\2 *$", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation with pages that it does not name, and with the API reference."""
    named = set(re.findall(r"[\w/]+\.md", str(config.nav)))
    missing = sorted({page.name for page in (ROOT / "docs").glob("*.md")} - named)
    (how_tos,) = (entry[NEW_PAGES] for entry in config.nav if NEW_PAGES in entry)
    how_tos.extend(missing)
    reference = [{"Public names": "reference/esen_flows.md"}]
    reference += [{name.removeprefix("esen_flows."): f"reference/{name}.md"} for name in packages()[1:]]
    config.nav.insert(-2, {"API": reference})
    return config


def packages() -> list[str]:
    """Dotted names of the package and of all folders in it that hold modules."""
    folders = sorted({path.parent for path in (ROOT / "esen_flows").rglob("*.py")})
    return [".".join(folder.relative_to(ROOT).parts) for folder in folders]


def reference_page(package: str) -> str:
    """The Markdown of a package's page: its own docstring, then every module with public names.

    Parameters
    ----------
    package
        Dotted name.

    Returns
    -------
    str
        Markdown with directives of mkdocstrings.
    """
    folder = ROOT.joinpath(*package.split("."))
    modules = [f"{package}.{path.stem}" for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")]
    directives = [f"::: {name}\n    options: {{heading_level: 2}}" for name in modules]
    if package == "esen_flows":
        names = [f"- [`esen_flows.{name}`][{module}.{name}]" for name, module in esen_flows._MODULES.items()]
        directives.insert(0, "Loaded by `import esen_flows`:\n\n" + "\n".join(names))
    return "\n\n".join([f"# {package}", *directives]) + "\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages of docs/ with those of the API reference, and with pages and images of other folders."""
    for package in packages():
        files.append(File.generated(config, f"reference/{package}.md", content=reference_page(package)))
    for pattern in (*PAGES_ELSEWHERE, *IMAGES_ELSEWHERE):
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page whose links fit the site, and whose commands are marked where no test runs them."""
    if page.file.src_uri.startswith("reference/"):
        return markdown
    source = Path(page.file.abs_src_path or "").relative_to(ROOT).as_posix()
    parts, end = [], 0
    for block in FENCED.finditer(markdown):
        parts += [relinked(markdown[end : block.start()], source, page, files), marked(block.group(), page)]
        end = block.end()
    return "".join([*parts, relinked(markdown[end:], source, page, files)])


def marked(block: str, page: Page) -> str:
    """A fenced block; one of commands that no test runs gets a title that says so."""
    if page.file.src_uri.startswith("tutorials/"):
        return block
    return re.sub(r"\A( *```+bash)$", rf'\1 title="{NOT_RUN}"', block, count=1, flags=re.MULTILINE)


def relinked(text: str, source: str, page: Page, files: Files) -> str:
    """Text whose links to files of the repository lead to pages of the site; other files are named without a link."""

    def change(link: re.Match[str]) -> str:
        image, words, target, anchor = link.groups(default="")
        if "://" in target or target.startswith("mailto:"):
            return link.group()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        there = path.removeprefix("docs/")
        if files.get_file_from_path(there) is None:
            return words if (ROOT / path).exists() else link.group()
        return f"{image}[{words}]({posixpath.relpath(there, posixpath.dirname(page.file.src_uri) or '.')}{anchor})"

    return LINK.sub(change, text)
