"""Make what the package knows of the leaderboard: published results, and PBE's curves of diatomic molecules.

    python benchmarks/published_board.py FOLDER_OF_CARDS DIATOMICS_DFT

Cards and curves (site/src/lib/diatomics-dft.json.gz) are Matbench Discovery's (MIT), of July 2026:
https://github.com/janosh/matbench-discovery. Written to esen_flows/metrics: published_2026_07.csv, one row for each
card with metrics, and diatomics_pbe.json.gz with the 87 elements that are scored.
"""

import argparse
import csv
import gzip
import json
from pathlib import Path
from typing import Any

import yaml

from esen_flows.metrics.diatomics import ELEMENTS, PBE_FILE
from esen_flows.metrics.published import COLUMNS, PUBLISHED_FILE, card_metrics


def row_of(card: dict[str, Any]) -> dict[str, Any] | None:
    """The row of one card; None for a card without metrics."""
    if not card.get("metrics"):
        return None
    found: dict[str, Any] = {
        "model_key": card["model_key"],
        "model_name": card["model_name"],
        "n_parameters": card["model_params"],
        "training_sets": "|".join(card["training_sets"]),
        "targets": card["targets"],
        "added": str(card["dates"]["benchmark_added"]),
        "lifecycle": card["lifecycle"],
        **card_metrics(card),
    }
    return {name: found.get(name) for name in COLUMNS}


def main() -> None:
    """Write the table and the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cards", type=Path)
    parser.add_argument("diatomics", type=Path)
    given = parser.parse_args()
    rows = [row_of(yaml.safe_load(card.read_text())) for card in sorted(given.cards.glob("*.yml"))]
    with PUBLISHED_FILE.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in rows if row is not None)
    pairs = json.loads(gzip.decompress(given.diatomics.read_bytes()))["PBE"]
    fields = ("distances", "energies", "forces")
    kept = {f"{one}-{one}": {name: pairs[f"{one}-{one}"][name] for name in fields} for one in ELEMENTS}
    text = json.dumps({"PBE": kept}, separators=(",", ":"))
    PBE_FILE.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


if __name__ == "__main__":
    main()
