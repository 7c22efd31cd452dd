"""The table of reference sets: one entry each, written by hand from addresses that were confirmed.

The digests and addresses of Matbench Discovery's files are those of its `data-files.yml` (July 2026), and those of the
diatomics are matcalc's. Where no digest is published, the one of the first download is pinned.
"""

from dataclasses import dataclass

_MATBENCH = "as Matbench Discovery packs it"


@dataclass(frozen=True)
class ReferenceFile:
    """A file of a reference set.

    Attributes
    ----------
    name
        Name of the file.
    url
        Address that it is downloaded from.
    page
        Address for people; "" where it is `url`.
    md5
        Published md5 digest; None if there is none.
    size_bytes
        Published size in bytes; None if there is none.
    """

    name: str
    url: str
    page: str = ""
    md5: str | None = None
    size_bytes: int | None = None

    @property
    def address(self) -> str:
        """Address for people."""
        return self.page or self.url


@dataclass(frozen=True)
class ReferenceSet:
    """Reference data of one kind.

    Attributes
    ----------
    title
        Content in a few words.
    licence
        Licence, and where that is said if the address does not say it.
    pattern
        Pattern of the names under which users have the files.
    files
        Its files; empty for a folder of files that the server lists.
    listing
        Address of that folder, with a slash at its end; "" for named files.
    size
        Published size in words; "" if none is published, or if it is that of the files.
    """

    title: str
    licence: str
    pattern: str
    files: tuple[ReferenceFile, ...] = ()
    listing: str = ""
    size: str = ""

    @property
    def address(self) -> str:
        """Address for people."""
        return self.listing or self.files[0].address


def _figshare(number: int, name: str, md5: str, size_bytes: int | None = None) -> tuple[ReferenceFile, ...]:
    """One file of figshare; its page answers programs with HTTP 202 and no content, its download host does not."""
    url, page = f"https://ndownloader.figshare.com/files/{number}", f"https://figshare.com/files/{number}"
    return (ReferenceFile(name, url, page, md5, size_bytes),)


def _at(url: str, name: str) -> tuple[ReferenceFile, ...]:
    return (ReferenceFile(name, url),)


_SALEX = "https://dl.fbaipublicfiles.com/opencatalystproject/data/omat/241018/sAlex/"
_MATPES = "https://s3.us-east-1.amazonaws.com/materialsproject-contribs/MatPES_2025_1/"
_MACE_OFF = "https://www.repository.cam.ac.uk/bitstreams/"
_TM23 = "benchmarking_master_collection-20240316T202423Z-001.zip"
_MD22 = (
    "Ac-Ala3-NHMe", "DHA", "stachyose", "AT-AT", "AT-AT-CG-CG", "buckyball-catcher", "double-walled_nanotube",
)  # fmt: skip

REFERENCE_SETS: dict[str, ReferenceSet] = {
    "wbm": ReferenceSet(
        "initial structures of WBM, 257,487 crystals",
        f"CC-BY-4.0, {_MATBENCH}",
        "*wbm-initial-atoms*.extxyz*",
        _figshare(48169597, "2024-08-04-wbm-initial-atoms.extxyz.zip", "2a292211ca6acb30ed8416178d644098"),
    ),
    "wbm-summary": ReferenceSet(
        "DFT's formation energies and hull distances of WBM",
        f"CC-BY-4.0, {_MATBENCH}",
        "*wbm-summary*.csv*",
        _figshare(64706751, "2023-12-13-wbm-summary.csv.gz", "1555268d3aa59d20262cb9d01ce0994b"),
    ),
    "wbm-entries": ReferenceSet(
        "DFT's computed entries of WBM, with the parameters that decide on corrections",
        f"CC-BY-4.0, {_MATBENCH}",
        "*wbm-computed-structure-entries*.jsonl*",
        _figshare(53161832, "2022-10-19-wbm-computed-structure-entries.jsonl.gz", "655b7a9c368e136dd8747f1ef8002e7a"),
        size="86.5 MB",
    ),
    "wbm-relaxed": ReferenceSet(
        "structures of WBM relaxed by DFT",
        f"CC-BY-4.0, {_MATBENCH}",
        "*wbm-relaxed-atoms*.extxyz*",
        _figshare(48169600, "2024-08-04-wbm-relaxed-atoms.extxyz.zip", "4726643ac0dfbab69a4284454c891e68"),
    ),
    "wbm-symmetry-1e-2": ReferenceSet(
        "symmetries of WBM relaxed by DFT, tolerance 0.01 Angstrom",
        f"CC-BY-4.0, {_MATBENCH}",
        "*dft-geo-opt-symprec=1e-2*.csv*",
        _figshare(
            52066799, "dft-geo-opt-symprec=1e-2-moyo=0.3.1.csv.gz", "df60953f55755cea62e6df880ece07d9", 2_011_610
        ),
    ),
    "wbm-symmetry-1e-5": ReferenceSet(
        "symmetries of WBM relaxed by DFT, tolerance 0.00001 Angstrom",
        f"CC-BY-4.0, {_MATBENCH}",
        "*dft-geo-opt-symprec=1e-5*.csv*",
        _figshare(52066796, "dft-geo-opt-symprec=1e-5-moyo=0.3.1.csv.gz", "f20d2ca1cabbc4bfb2bdf0f7698a2e75"),
    ),
    "mp-elements": ReferenceSet(
        "computed entries of the elements in the Materials Project",
        f"CC-BY-4.0, {_MATBENCH}",
        "*mp-elemental-reference-entries*.json.gz",
        _figshare(
            40387775, "2023-02-07-mp-elemental-reference-entries.json.gz", "6e93b6f38d6e27d6c811d3cafb23a070", 6_350
        ),
    ),
    "mp-entries": ReferenceSet(
        "computed entries of the Materials Project, 2022.10.28, for a phase diagram",
        f"CC-BY-4.0, {_MATBENCH}",
        "*mp-computed-structure-entries*.json*",
        _figshare(40344436, "2023-02-07-mp-computed-structure-entries.json.gz", "76fc748db6b175bb80de4c276d27c235"),
    ),
    "mp-phase-diagram": ReferenceSet(
        "phase diagram of the Materials Project as a pickle: opening it runs code, and nothing here opens it",
        f"CC-BY-4.0, {_MATBENCH}",
        "*ppd-mp*.pkl*",
        _figshare(48241624, "2023-02-07-ppd-mp.pkl.gz", "60d19d691fa1d338aa496a40a9641bef"),
    ),
    "phonondb-103": ReferenceSet(
        "structures of PhononDB's 103 conductivities",
        f"CC-BY-4.0, {_MATBENCH}",
        "*phononDB-PBE*structures.extxyz",
        _figshare(52179965, "2024-11-09-phononDB-PBE-103-structures.extxyz", "0b149802835e260aa3ab0c7e3c88625b"),
    ),
    "phonondb-103-kappa": ReferenceSet(
        "DFT's conductivities of PhononDB's 103 crystals, without non-analytical correction",
        f"CC-BY-4.0, {_MATBENCH}",
        "*kappas*PBE*noNAC*.json.gz",
        _figshare(59988539, "2024-11-09-kappas-phononDB-PBE-noNAC.json.gz", "70c7a8b0df4cbb4d98f12aea5f61aeee"),
    ),
    "mdr": ReferenceSet(
        "DFT's phonons of 9,959 crystals (Alexandria's PBE version of the MDR set)",
        "CC-BY-4.0",
        "mp-*.yaml.bz2",
        listing="https://alexandria.icams.rub.de/data/phonon_benchmark/pbe/",
    ),
    "diatomics": ReferenceSet(
        "curves of 92 homonuclear diatomics by PBE and r2SCAN",
        f"CC-BY-4.0, {_MATBENCH}",
        "*diatomics-dft*.json.gz",
        _figshare(68541277, "diatomics-dft.json.gz", "d090dcf5d208ad94c188e017d0e0b149", 203_913),
    ),
    "dynamat": ReferenceSet(
        "DynaMat v1.0: ab-initio trajectories of 17 systems",
        "not stated where the address was found",
        "*dynamat*reference-trajectories*.h5",
        _figshare(
            66309926, "2026-06-29-dynamat-v1.0-reference-trajectories.h5", "09d32104888b9639599a15d3ecb124cb"
        ),
    ),
    "mptrj": ReferenceSet(
        "MPtrj: 1.6 million frames of the Materials Project's relaxations",
        f"MIT, {_MATBENCH}",
        "*mp-trj*.extxyz*",
        _figshare(49034296, "2024-09-03-mp-trj.extxyz.zip", "7f433171e4e5f2ef9304dccd42d5488f"),
    ),
    "salex-train": ReferenceSet(
        "sAlex, training part: 10,447,765 frames",
        "CC-BY-4.0",
        "salex-train*",
        _at(f"{_SALEX}train.tar.gz", "salex-train.tar.gz"),
        size="7.6 GB",
    ),
    "salex-validation": ReferenceSet(
        "sAlex, validation part: 553,218 frames",
        "CC-BY-4.0",
        "salex-val*",
        _at(f"{_SALEX}val.tar.gz", "salex-val.tar.gz"),
        size="408 MB",
    ),
    "matpes-pbe": ReferenceSet(
        "MatPES 2025.1 by PBE: 434,712 frames",
        "MIT",
        "MatPES-PBE*.json*",
        _at(f"{_MATPES}MatPES-PBE-2025.1.json.gz", "MatPES-PBE-2025.1.json.gz"),
    ),
    "matpes-r2scan": ReferenceSet(
        "MatPES 2025.1 by r2SCAN: 387,897 frames",
        "MIT",
        "MatPES-R2SCAN*.json*",
        _at(f"{_MATPES}MatPES-R2SCAN-2025.1.json.gz", "MatPES-R2SCAN-2025.1.json.gz"),
    ),
    "mace-off-test": ReferenceSet(
        "SPICE as MACE-OFF splits it, test part: 50,195 frames of seven subsets",
        "see https://doi.org/10.17863/CAM.107498",
        "test_large_neut_all*",
        _at(f"{_MACE_OFF}cb8351dd-f09c-413f-921c-67a702a7f0c5/download", "test_large_neut_all.tar.gz"),
        size="81 MB",
    ),
    "mace-off-train": ReferenceSet(
        "SPICE as MACE-OFF splits it, training part: 951,005 frames",
        "see https://doi.org/10.17863/CAM.107498",
        "train_large_neut_no_bad_clean*",
        _at(f"{_MACE_OFF}b185b5ab-91cf-489a-9302-63bfac42824a/download", "train_large_neut_no_bad_clean.tar.gz"),
    ),
    "tm23": ReferenceSet(
        "TM23: frames of 27 metals, cold, warm and molten",
        "see https://archive.materialscloud.org/record/2024.48",
        "benchmarking_master_collection*",
        _at(f"https://archive.materialscloud.org/records/tcrks-ymp88/files/{_TM23}?download=1", _TM23),
    ),
    "md22": ReferenceSet(
        "MD22: trajectories of seven molecules",
        "not stated at the address; ColabFit's copies say CC0-1.0",
        "md22_*.npz",
        tuple(
            ReferenceFile(
                f"md22_{name}.npz", f"http://www.quantum-machine.org/gdml/repo/datasets/md22_{name}.npz"
            )
            for name in _MD22
        ),
    ),
}  # fmt: skip
