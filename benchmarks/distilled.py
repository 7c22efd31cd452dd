"""Conductivities by a distilled force field beside those by its labeller, DFT and published force fields.

    esen-flows campaign metrics distill_nano103 --output distilled.csv
    python benchmarks/distilled.py distilled.csv --student checkpoint --teacher nequix_oam_pft \
        --published ../shared/data/phonondb_103/kappa-103-analysis.jsonl \
        --seen ../shared/data/nequix/pbe_mdr_split.json --output benchmarks/results/distilled.json

`--seen` names the crystals whose phonons the labeller was trained or validated on; the others have means of their own.
Published force fields are averaged over the crystals of the distilled one; the labeller over those of them that it has,
and beside it the distilled one over the same.
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

PROTOTYPES = {225: "rocksalt", 216: "zincblende", 186: "wurtzite"}
PUBLISHED = ("sevennet-l3i5", "nequix-mp-1-pft", "esen-30m-mp")


def read_members(paths: list[Path], student: str, teacher: str) -> dict[str, dict[str, Any]]:
    """Crystals of which the student has a result, by material; those of the teacher may be missing."""
    rows: dict[str, dict[str, dict[str, str]]] = {student: {}, teacher: {}}
    for path in paths:
        for row in csv.DictReader(path.open()):
            if row["model"] in rows and row["srme"]:
                rows[row["model"]][row["material"]] = row
    members = {}
    for material, own in sorted(rows[student].items()):
        labeller = rows[teacher].get(material)
        members[material] = {
            "formula": own["formula"],
            "kappa_dft": float(own["reference_w_per_m_k"]),
            "kappa_teacher": float(labeller["kappa_w_per_m_k"] or 0.0) if labeller else None,
            "kappa_student": float(own["kappa_w_per_m_k"] or 0.0),
            "srme_teacher": float(labeller["srme"]) if labeller else None,
            "srme_student": float(own["srme"]),
            "failure": own["failure"] or None,
        }
    return members


def add_published(members: dict[str, dict[str, Any]], analysis: Path, split: Path) -> None:
    """Prototype, whether the labeller saw the crystal's phonons, and SRME of published force fields."""
    lines = [json.loads(line) for line in analysis.read_text().splitlines()]
    base, by_key = lines[0]["_base"], {row["key"]: row for row in lines[1:]}
    parts = json.loads(split.read_text())
    seen = {*parts["train"], *parts["val"]}
    for place, material in enumerate(base["material_ids"]):
        if material in members:
            members[material] |= {
                "prototype": PROTOTYPES[base["spg_nums"][place]],
                "seen_by_teacher": material in seen,
                "srme_published": {key: by_key[key]["srme"][place] for key in PUBLISHED},
            }


def summary(members: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean SRME of all force fields on some crystals, and how far the student is from its teacher."""
    both = [one for one in members if one["srme_teacher"] is not None]
    sound = [one for one in both if one["kappa_teacher"] and one["kappa_student"]]
    ratios = [one["kappa_student"] / one["kappa_teacher"] for one in sound]
    return {
        "crystals": len(members),
        "failed": sum(one["srme_student"] >= 2 for one in members),
        "srme_student": mean(one["srme_student"] for one in members),
        "srme_published": {
            key: mean(one["srme_published"][key] for one in members) for key in members[0]["srme_published"]
        },
        "crystals_of_teacher": len(both),
        "srme_teacher": mean(one["srme_teacher"] for one in both) if both else None,
        "srme_student_of_these": mean(one["srme_student"] for one in both) if both else None,
        "median_deviation_from_teacher": median(abs(ratio - 1) for ratio in ratios) if ratios else None,
        "median_ratio_to_teacher": median(ratios) if ratios else None,
    }


def draw(members: list[dict[str, Any]], path: Path) -> None:
    """Conductivities of the student against those of the teacher and of DFT."""
    figure, panels = plt.subplots(1, 2, figsize=(8.6, 4.2), sharey=True)
    for axis, other, name in zip(panels, ("kappa_teacher", "kappa_dft"), ("labelling force field", "DFT"), strict=True):
        for prototype, marker in zip(PROTOTYPES.values(), "so^", strict=True):
            good = [one for one in members if one["prototype"] == prototype and one["kappa_student"] and one[other]]
            axis.scatter(
                [one[other] for one in good], [one["kappa_student"] for one in good], s=18, marker=marker, alpha=0.75,
                label=prototype,
            )  # fmt: skip
        values = [one[key] for one in members for key in (other, "kappa_student") if one[key]]
        low, high = min(values) / 1.5, max(values) * 1.5
        axis.plot([low, high], [low, high], color="0.5", lw=0.8)
        axis.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
        axis.set_xlabel(rf"$\kappa$ at 300 K, {name} (W m$^{{-1}}$ K$^{{-1}}$)")
    panels[0].set_ylabel(r"$\kappa$ at 300 K, distilled (W m$^{-1}$ K$^{-1}$)")
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=160)


def main() -> None:
    """Compare, print the table, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metrics", type=Path, nargs="+")
    parser.add_argument("--student", required=True)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--published", type=Path, required=True)
    parser.add_argument("--seen", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    members = read_members(given.metrics, given.student, given.teacher)
    add_published(members, given.published, given.seen)
    all_members = list(members.values())
    groups = {"all": all_members}
    groups |= {name: [one for one in all_members if one["prototype"] == name] for name in PROTOTYPES.values()}
    groups["phonons unseen by the teacher"] = [one for one in all_members if not one["seen_by_teacher"]]
    groups["phonons seen by the teacher"] = [one for one in all_members if one["seen_by_teacher"]]
    summaries = {name: summary(chosen) for name, chosen in groups.items() if chosen}
    columns = ("crystals", "number", "failed", "distilled", *PUBLISHED, "labeller, number", "labeller",
               "distilled on these", "median change of kappa")  # fmt: skip
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    for name, row in summaries.items():
        values = [row["srme_student"], *(row["srme_published"][key] for key in PUBLISHED)]
        cells = [name, row["crystals"], row["failed"], *(f"{one:.3f}" for one in values), row["crystals_of_teacher"]]
        if row["median_deviation_from_teacher"] is not None:
            cells += [f"{row['srme_teacher']:.3f}", f"{row['srme_student_of_these']:.3f}"]
            cells.append(f"{100 * row['median_deviation_from_teacher']:.0f} %")
        else:
            cells += ["", "", ""]
        print("| " + " | ".join(str(cell) for cell in cells) + " |")
    given.output.write_text(json.dumps({"summaries": summaries, "members": members}, indent=1) + "\n")
    draw(all_members, given.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
