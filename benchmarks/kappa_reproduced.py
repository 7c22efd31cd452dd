"""Conductivities of a campaign beside those that Matbench Discovery published for the same force field.

    esen-flows campaign metrics kappa_chgnet_cubic --output chgnet.csv
    python benchmarks/kappa_reproduced.py --published ../shared/data/phonondb_103/kappa-103-analysis.jsonl \
        --campaign chgnet-0.3.0=chgnet.csv --output benchmarks/results/kappa_reproduced.json

Members that the campaign does not have are left out on both sides. A name may be given several times, for the parts of
one table that several campaigns computed; crystals that the output holds already and no campaign has are kept.
"""

import argparse
import csv
import json
from pathlib import Path
from statistics import mean, median
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def read_published(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Conductivity, SRME and whether it was censored, by force field and material."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    ids = lines[0]["_base"]["material_ids"]
    return {
        row["key"]: {
            name: {"kappa": row["kappa_ml"][i], "srme": row["srme"][i], "censored": bool(row["srme_censored"][i])}
            for i, name in enumerate(ids)
        }
        for row in lines[1:]
    }


def crystal_of(row: dict[str, str], theirs: dict[str, Any]) -> dict[str, Any]:
    """Numbers of one crystal on both sides."""
    return {
        "material": row["material"],
        "formula": row["formula"],
        "kappa_w_per_m_k": float(row["kappa_w_per_m_k"]) if row["kappa_w_per_m_k"] else None,
        "published_w_per_m_k": theirs["kappa"],
        "dft_w_per_m_k": float(row["reference_w_per_m_k"]),
        "srme": float(row["srme"]),
        "published_srme": theirs["srme"],
        "failure": row["failure"] or None,
    }


def compare(crystals: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of SRME on both sides and deviations of the conductivities, with one entry per crystal."""
    off = [
        abs(each["kappa_w_per_m_k"] / each["published_w_per_m_k"] - 1)
        for each in crystals
        if each["kappa_w_per_m_k"] and each["published_w_per_m_k"]
    ]
    return {
        "crystals": len(crystals),
        "failed": sum(each["srme"] >= 2 for each in crystals),
        "published_failed": sum(each["published_srme"] >= 2 for each in crystals),
        "failed_on_one_side": [
            each["material"] for each in crystals if (each["srme"] >= 2) != (each["published_srme"] >= 2)
        ],
        "srme": mean(each["srme"] for each in crystals),
        "published_srme": mean(each["published_srme"] for each in crystals),
        "median_deviation": median(off),
        "largest_deviation": max(off),
        "members": crystals,
    }


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Our conductivities against the published ones, and those of DFT for scale."""
    figure, panels = plt.subplots(1, len(results), figsize=(4.2 * len(results), 4.0), squeeze=False)
    for axis, (name, result) in zip(panels[0], results.items(), strict=True):
        good = [each for each in result["members"] if each["kappa_w_per_m_k"] and each["published_w_per_m_k"]]
        theirs = [each["published_w_per_m_k"] for each in good]
        all_values = theirs + [each["dft_w_per_m_k"] for each in good]
        limits = [min(all_values) / 1.5, max(all_values) * 1.5]
        axis.plot(limits, limits, color="0.7", lw=1, zorder=0)
        axis.plot([each["dft_w_per_m_k"] for each in good], theirs, "x", color="0.6", ms=4, label="DFT")
        axis.plot([each["kappa_w_per_m_k"] for each in good], theirs, "o", ms=4, label="this package")
        axis.set(xscale="log", yscale="log", xlim=limits, ylim=limits, title=f"{name}, {len(good)} crystals")
        axis.set(xlabel="kappa, 300 K (W/m/K)", ylabel="published for this force field (W/m/K)")
        axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Read the command line, compare and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--published", type=Path, required=True, help="kappa-103-analysis.jsonl")
    parser.add_argument("--campaign", action="append", required=True, help="PUBLISHED_KEY=metrics.csv; may be repeated")
    parser.add_argument("--output", type=Path, required=True, help="JSON file; the figure has the same name")
    arguments = parser.parse_args()
    published = read_published(arguments.published)
    earlier = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    members = {name: {each["material"]: each for each in result["members"]} for name, result in earlier.items()}
    for each in arguments.campaign:
        name, _, path = each.partition("=")
        with Path(path).open() as file:
            rows = [row for row in csv.DictReader(file) if row["state"] in ("finished", "failed")]
        new = {row["material"]: crystal_of(row, published[name][row["material"]]) for row in rows}
        members[name] = members.get(name, {}) | new
    results = {name: compare(list(found.values())) for name, found in members.items()}
    for name, result in results.items():
        print(name, {key: value for key, value in result.items() if key != "members"})
    arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    draw(results, arguments.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
