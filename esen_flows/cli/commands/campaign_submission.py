"""`esen-flows campaign submission`: the files that the leaderboard takes, from a campaign with a benchmark."""

from pathlib import Path
from typing import Annotated

import typer

from esen_flows.cli.options import CampaignArgument
from esen_flows.cli.output.progress import counted
from esen_flows.cli.store import open_store

ReferenceOption = Annotated[
    Path | None, typer.Option("--folder", help="Folder of DFT's results. Default: the reference sets of this machine.")
]


def submission(
    name: CampaignArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to; it is made if needed.")] = Path(
        "submission"
    ),
    author_file: Annotated[
        Path, typer.Option("--card", help="YAML with authors, licence, doi and what else the leaderboard's card needs.")
    ] = Path("submission.yaml"),
    folder: ReferenceOption = None,
) -> None:
    """Write the files of a submission to Matbench Discovery: artefacts, run information and model card.

    A second campaign of the same force field adds its benchmark to the card.
    """
    from esen_flows.campaigns.submission import write_submission
    from esen_flows.store.campaigns import member_count

    store = open_store()
    with counted(f"reading {name}", member_count(store, name)) as advance:
        found = write_submission(store, name, author_file, output, references=folder, on_member=advance)
    for file in found.files:
        typer.echo(f"wrote {file}")
    typer.echo(f"to compute its metrics from these files alone: esen-flows leaderboard score {output}")
