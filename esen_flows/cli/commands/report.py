"""`esen-flows report`: a campaign, a force field, a result or a submission as one HTML page that needs no network."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from esen_flows.cli.commands.results import one_result, parents_of
from esen_flows.cli.output.progress import counted
from esen_flows.cli.store import existing_store, open_store
from esen_flows.cli.usage import UsageError, check_folder
from esen_flows.errors import EsenFlowsError, InputError
from esen_flows.schemas.card import list_cards, read_card, resolve_model

if TYPE_CHECKING:
    from esen_flows.reports.page import Page
    from esen_flows.schemas.documents import ResultDocument
    from esen_flows.store.results import Store

PAGE = "report.html"
Target = Literal["campaign", "model", "key", "folder"]
FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Folder to write to; it is made if needed.", show_default="results/report-NAME"
    ),
]
AgainstOption = Annotated[
    list[str] | None,
    typer.Option(help="Another campaign, or other keys or folders (repeatable), to put beside it."),
]


def report(
    target: Annotated[
        str,
        typer.Argument(
            metavar="CAMPAIGN|MODEL|KEY|FOLDER",
            help="Campaign, model card, result key, or a folder with files of a submission.",
        ),
    ],
    output: FolderOption = None,
    against: AgainstOption = None,
    kind: Annotated[Target | None, typer.Option("--as", help="What the name is, if it is several things.")] = None,
) -> None:
    """Write report.html, a page that needs no network; for a campaign also its tables, summary and figures."""
    write_report(target, output, against or [], kind or _kind_of(target))


def write_report(target: str, output: Path | None, against: Sequence[str], kind: Target) -> None:
    """Write a report and print the names of its files.

    Parameters
    ----------
    target
        Name of a campaign or a card, key of a result, or a folder.
    output
        Folder to write to; None: results/report-NAME.
    against
        What to compare with.
    kind
        What the target is.

    Raises
    ------
    InputError
        There is no such thing, or it cannot be compared.
    """
    folder = output or Path("results") / f"report-{Path(target).resolve().name if kind == 'folder' else target}"
    check_folder(folder)
    files: Sequence[Path] = ()
    if kind == "campaign":
        page, files = _campaign(target, folder, against)
    elif kind == "model":
        if against:
            raise UsageError("--against compares campaigns, results or folders; a model card has its comparisons in it")
        page = _model(target)
    elif kind == "key":
        page = _result(target, against)
    else:
        page = _folder(Path(target), against)
    from esen_flows.reports.render import write_page

    for file in (*files, write_page(page, folder / PAGE)):
        typer.echo(f"wrote {file}")


def _kind_of(target: str) -> Target:
    """What a name is; a name of several things is refused."""
    store = None if Path(target).is_dir() else existing_store()
    found: list[Target] = ["folder"] if Path(target).is_dir() else []
    if target in list_cards():
        found.append("model")
    if store is not None:
        from esen_flows.store.campaigns import campaign_names

        if target in campaign_names(store):
            found.append("campaign")
    if len(found) > 1:
        raise UsageError(
            f"{target} is the name of a {' and of a '.join(found)}; say which by --as {' or --as '.join(found)}"
        )
    if found:
        return found[0]
    if store is not None and len(target) >= 4 and not set(target.lower()) - set("0123456789abcdef"):
        return "key"
    raise InputError(
        f"{target} is no campaign (list them: esen-flows campaign list), no model card (esen-flows models), no result "
        "key (esen-flows query KIND) and no folder"
    )


def _campaign(name: str, folder: Path, against: Sequence[str]) -> "tuple[Page, tuple[Path, ...]]":
    from esen_flows.campaigns.report import write_report as write_files
    from esen_flows.reports.campaign import campaign_page
    from esen_flows.store.campaigns import campaign_of, member_count

    if len(against) > 1:
        raise UsageError("--against takes one campaign; make a report for each other one")
    store = open_store()
    for other in against:  # before hours of reading
        campaign_of(store, other)
    with counted(f"reading {name}", member_count(store, name)) as advance:
        written = write_files(store, name, folder, on_member=advance)
    return campaign_page(store, written, next(iter(against), None)), written.files


def _model(name: str) -> "Page":
    from esen_flows.reports.model import model_page

    card = read_card(name)
    try:
        key = resolve_model(name).key
    except EsenFlowsError:  # it is not on this machine
        key = None
    store = existing_store()
    if store is None or key is None:
        return model_page(card, key, [], {})
    from esen_flows.campaigns.audits import verdicts
    from esen_flows.store.models import count_results

    own = [verdict for verdict in verdicts(store).values() if verdict.model_key == key]
    return model_page(card, key, own, count_results(store.database, key))


def _result(key: str, against: Sequence[str]) -> "Page":
    from esen_flows.cli.output.artefacts import write_artefacts
    from esen_flows.cli.output.report import references_of
    from esen_flows.reports.result import result_page
    from esen_flows.schemas.property_lookup import entry_of

    store = open_store()
    steps = _steps(store, key)
    result = steps[-1]
    with TemporaryDirectory() as place:
        if result.failure is None:
            write_artefacts(result, Path(place), steps[:-1])
        figures = {path.name: path.read_bytes() for path in sorted(Path(place).glob("*.png"))}
    names = [field.name for field in entry_of(result.kind).summary]
    references = {name: references_of(steps, name) for name in names}
    return result_page(steps, [_steps(store, other) for other in against], references, figures)


def _steps(store: "Store", key: str) -> "list[ResultDocument]":
    result = one_result(store, key, load_arrays=True)
    return [*parents_of(store, result), result]


def _folder(folder: Path, against: Sequence[str]) -> "Page":
    from esen_flows.reports.submission import submission_page
    from esen_flows.reports.submission_files import read_submissions

    for other in against:  # before seconds of reading
        if not Path(other).is_dir():
            raise UsageError(f"--against {other}: a folder is compared with another folder, and this is none")
    found = [submission for place in (folder, *map(Path, against)) for submission in read_submissions(place)]
    return submission_page(folder.resolve().name, found)
