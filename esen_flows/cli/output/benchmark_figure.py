"""Figures of campaigns and of files of predictions against DFT, for `esen-flows leaderboard --figure`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from esen_flows.cli.usage import UsageError

FigureKind = Literal["models", "roc", "rolling-mae", "precision-recall", "rmsd", "parity"]


def draw_benchmark(kind: str, campaigns: Sequence[str], predictions: Sequence[Path], path: Path) -> Path:
    """Draw a figure of campaigns and of files of predictions.

    Parameters
    ----------
    kind
        Any kind of figure except "models".
    campaigns
        Names of campaigns with a benchmark.
    predictions
        Files of formation energies.
    path
        PNG file to write; an SVG file is written beside it.

    Returns
    -------
    Path
        The PNG file.

    Raises
    ------
    UsageError
        There is neither a campaign nor a file.
    InputError
        A campaign, a file or a reference cannot be read, or there is nothing of this kind to draw.
    """
    if not campaigns and not predictions:
        raise UsageError(
            f"--kind {kind} draws materials, which the published results do not have: name a campaign by --with, or a "
            "file of formation energies by --predictions"
        )
    from esen_flows.campaigns.benchmark import campaign_metrics
    from esen_flows.campaigns.benchmark_figures import draw, judged_file
    from esen_flows.campaigns.sources import reference_file
    from esen_flows.cli.store import open_store
    from esen_flows.metrics.discovery import read_discovery_reference

    judged = [model for name in campaigns for model in campaign_metrics(open_store(), name)]
    if predictions:
        reference = read_discovery_reference(reference_file("wbm-summary", None))
        judged += [judged_file(file, reference) for file in predictions]
    title = ", ".join(campaigns) or ("WBM" if kind == "parity" else "Unique prototypes of WBM")
    drawn = draw(kind, judged, path, title)
    for reason in drawn.left_out:
        print(f"not in the figure: {reason}", file=sys.stderr)
    return drawn.path
