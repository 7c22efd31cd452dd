"""Who may lean on whom: ARCHITECTURE's import rules, read from the source and tried in fresh interpreters."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "esen_flows"

# Imports point down this list only.
ORDER = (
    "cli", "reports", "campaigns", "queue", "makers", "metrics", "plots", "store", "testing", "physics", "training",
    "forcefield", "network", "structures", "data", "schemas", "settings", "assets", "progress", "stopping", "native",
    "yaml_files", "files", "durations", "units", "errors", "version",
)  # fmt: skip
BARE_ROOMS = ("training", "forcefield", "network", "data")
BARE_PACKAGES = frozenset({"torch", "numpy", "ase", "safetensors", "vesin"})
BARE_OWN = (
    "esen_flows.errors", "esen_flows.units", "esen_flows.files", "esen_flows.native", "esen_flows.stopping",
    "esen_flows.schemas.keys", "esen_flows.schemas.checkpoint_header", "esen_flows.schemas.declarations",
    "esen_flows.structures.inputs",
)  # fmt: skip
# What a bare room may import inside a function, because it is reached only where the package is there.
LAZY_IN_BARE_ROOMS = {
    "esen_flows/forcefield/third_party/chgnet.py": {"chgnet", "pymatgen"},
    "esen_flows/forcefield/third_party/sevennet.py": {"sevenn", "torch_geometric"},
    "esen_flows/forcefield/load.py": {"esen_flows.schemas.card"},
    "esen_flows/forcefield/rotations.py": {"scipy.integrate"},
    "esen_flows/forcefield/environments.py": {
        "esen_flows.schemas.card",
        "esen_flows.schemas.model_card",
        "esen_flows.settings",
    },
    "esen_flows/forcefield/third_party/calculator.py": {"esen_flows.schemas.model_card"},
    "esen_flows/forcefield/pull.py": {
        "esen_flows.schemas.card",
        "esen_flows.schemas.model_card",
        "esen_flows.settings",
    },
    "esen_flows/network/esen/grid.py": {"e3nn.o3"},
    "esen_flows/training/config.py": {"esen_flows.yaml_files"},
    "esen_flows/data/recipes.py": {"esen_flows.yaml_files"},
    "esen_flows/data/sources/ase_databases.py": {"lmdb"},
    "esen_flows/data/sources/spice.py": {"h5py"},
}
# Knows FireWorks from inside: its collections, its fields of a firework and its private methods.
ADAPTER = "esen_flows/queue/fireworks_adapter.py"
ONLY_IMPORTER = {
    "pymongo": "esen_flows/store/",
    "bson": "esen_flows/store/",
    "gridfs": "esen_flows/store/",
    "maggma": "esen_flows/store/",
    "phonopy": "esen_flows/physics/lattice/",
    "phono3py": "esen_flows/physics/lattice/",
    "fireworks": ADAPTER,
}
HEAVY = ("torch", "atomate2")
NEVER_HEAVY = ("schemas", "store", "plots", "metrics", "reports")
PUBLIC_MODULES = ("esen_flows.cli.notebook", "esen_flows.forcefield.load", "esen_flows.queue.submit")
NOT_HEAVY_AT_IMPORT = ("cli", "__init__")


@dataclass(frozen=True)
class Import:
    """One imported module: `lazy` inside a function, `typing` under TYPE_CHECKING, which never runs."""

    file: str
    line: int
    module: str
    lazy: bool
    typing: bool

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    @property
    def importing_room(self) -> str:
        return self.file.split("/")[1].removesuffix(".py")

    @property
    def imported_room(self) -> str | None:
        """The room of our own that is imported; None for other packages and for `esen_flows` itself."""
        parts = self.module.split(".")
        return parts[1] if parts[0] == "esen_flows" and len(parts) > 1 else None


def is_own_module(dotted: str, root: Path) -> bool:
    path = root.joinpath(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def modules_of(node: ast.Import | ast.ImportFrom, file: str, root: Path) -> list[str]:
    """The modules that one statement names; `from package import x` counts as `package.x` where x is a module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        package = file.removesuffix(".py").split("/")[: -node.level]
        base = ".".join([*package, *([base] if base else [])])
    if base.partition(".")[0] != "esen_flows":
        return [base]
    return [f"{base}.{a.name}" if is_own_module(f"{base}.{a.name}", root) else base for a in node.names]


def imports_of(path: Path, root: Path) -> list[Import]:
    """Every import statement of a file, wherever it stands."""
    file = path.relative_to(root).as_posix()

    def visit(node: ast.AST, lazy: bool, typing: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for module in modules_of(node, file, root):
                yield Import(file, node.lineno, module, lazy, typing)
        lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_body: list[ast.stmt] = []
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            typing_body = node.body
        for child in ast.iter_child_nodes(node):
            yield from visit(child, lazy, typing or child in typing_body)

    return list(visit(ast.parse(path.read_text(encoding="utf-8"), filename=file), False, False))


@cache
def all_imports(root: Path = ROOT) -> list[Import]:
    files = sorted((root / "esen_flows").rglob("*.py"))
    return [found for path in files for found in imports_of(path, root)]


def upward(imports: list[Import]) -> list[str]:
    """Imports that point up the list, or at a room that is not on it."""
    faults = []
    for found in imports:
        own, other = found.importing_room, found.imported_room
        if other is None or other == own:
            continue
        if own == "__init__":
            # The public names of the package, on first use only.
            allowed = found.module == "esen_flows.version" or (
                found.module in PUBLIC_MODULES and (found.lazy or found.typing)
            )
        elif own not in ORDER or other not in ORDER:
            allowed = False
        else:
            allowed = ORDER.index(own) < ORDER.index(other) and (other != "testing" or own == "cli")
        if not allowed:
            faults.append(f"{found.where}: {own} imports {found.module}")
    return faults


def stolen(imports: list[Import]) -> list[str]:
    """Imports of a package that belongs to another room."""
    return [
        f"{found.where}: imports {found.module}, which only {ONLY_IMPORTER[found.top]} may"
        for found in imports
        if found.top in ONLY_IMPORTER and not found.file.startswith(ONLY_IMPORTER[found.top])
    ]


def heavy(imports: list[Import]) -> list[str]:
    """Imports of torch or atomate2 where they would cost every command their start-up time."""
    return [
        f"{found.where}: imports {found.module}"
        for found in imports
        if found.top in HEAVY
        and (
            found.importing_room in NEVER_HEAVY
            or (found.importing_room in NOT_HEAVY_AT_IMPORT and not found.lazy and not found.typing)
        )
    ]


def not_bare(imports: list[Import]) -> list[str]:
    """Imports that a bare GPU machine could not follow."""
    faults = []
    for found in imports:
        if found.importing_room not in BARE_ROOMS:
            continue
        if found.imported_room is not None:
            allowed = found.imported_room in BARE_ROOMS or found.module in BARE_OWN
        else:
            allowed = found.top in BARE_PACKAGES or found.top in sys.stdlib_module_names or found.top == "esen_flows"
        if found.lazy or found.typing:
            exceptions = LAZY_IN_BARE_ROOMS.get(found.file, set())
            allowed = allowed or found.module in exceptions or found.top in exceptions
        if not allowed:
            faults.append(f"{found.where}: imports {found.module}")
    return faults


def file_of(module: str, files: frozenset[str]) -> str | None:
    """The file of one of our modules, relative to the checkout; None for other packages and for names in a module."""
    base = module.replace(".", "/")
    return next((file for file in (f"{base}.py", f"{base}/__init__.py") if file in files), None)


def cyclic(imports: list[Import]) -> list[str]:
    """Imports that lie on a cycle of files; those for type checkers alone do not count, those in functions do."""
    files = frozenset(found.file for found in imports) | {
        path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")
    }
    graph: dict[str, dict[str, Import]] = {}
    for found in imports:
        target = file_of(found.module, files)
        if target is not None and not found.typing and target != found.file:
            graph.setdefault(found.file, {})[target] = found

    def reaches(start: str, end: str) -> bool:
        seen, waiting = {start}, [start]
        while waiting:
            file = waiting.pop()
            if file == end:
                return True
            following = graph.get(file, {}).keys() - seen
            seen |= following
            waiting += following
        return False

    return [
        f"{found.where}: {found.module} leads back to {file}"
        for file, targets in graph.items()
        for target, found in targets.items()
        if reaches(target, file)
    ]


RULES = {"upward": upward, "stolen": stolen, "heavy": heavy, "not_bare": not_bare, "cyclic": cyclic}


@pytest.mark.parametrize("rule", RULES)
def test_source_follows_the_rule(rule: str) -> None:
    faults = RULES[rule](all_imports())
    assert not faults, "\n".join(["see the order of rooms at the top of this file:", *faults])


def named(names: set[str], path: Path) -> list[str]:
    """Lines of a file on which Python code, not text, has one of these names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute | ast.alias)]
    label = {ast.Name: "id", ast.Attribute: "attr", ast.alias: "name"}
    lines = [node.lineno for node in found if getattr(node, label[type(node)]) in names]
    return [f"{path.relative_to(ROOT).as_posix()}:{line}" for line in lines]


@pytest.mark.parametrize(
    ("folder", "names"),
    [("esen", {"ESEN", "ESENConfig"}), ("edge_transformer", {"EdgeTransformer", "EdgeTransformerConfig"})],
)
def test_a_network_family_is_named_in_its_folder_and_in_the_table_of_families_alone(
    folder: str, names: set[str]
) -> None:
    own, table = PACKAGE / "network" / folder, PACKAGE / "forcefield" / "families.py"
    assert named(names, table)
    others = [path for path in sorted(PACKAGE.rglob("*.py")) if own not in path.parents and path != table]
    assert [line for path in others for line in named(names, path)] == []


def test_backends_are_known_by_their_seam_alone() -> None:
    backends, seam = "esen_flows.network.backends", "esen_flows.network.backends.edge_sums"
    doctor = ("esen_flows/cli/commands/doctor.py", "esen_flows.network.backends.cpu.native")
    faults = [
        f"{found.where}: imports {found.module}"
        for found in all_imports()
        if found.module.startswith(backends)
        and not found.file.startswith("esen_flows/network/backends/")
        and found.module != seam
        and (found.file, found.module) != doctor
    ]
    assert faults == []


def test_a_cycle_of_files_is_found() -> None:
    one, two, three = (f"esen_flows/data/{name}.py" for name in ("one", "two", "three"))
    there = Import(one, 1, "esen_flows.data.two", lazy=False, typing=False)
    back = Import(two, 7, "esen_flows.data.three", lazy=True, typing=False)
    round_trip = Import(three, 9, "esen_flows.data.one", lazy=False, typing=False)
    assert [fault.partition(": ")[0] for fault in cyclic([there, back, round_trip])] == [
        f"{one}:1",
        f"{two}:7",
        f"{three}:9",
    ]
    for_types = Import(two, 7, "esen_flows.data.three", lazy=False, typing=True)
    assert cyclic([there, for_types, round_trip]) == []


@pytest.mark.parametrize(
    ("rule", "file", "source", "line"),
    [
        ("upward", "physics/relax.py", "def f():\n    from esen_flows.store import connection", 2),
        ("upward", "schemas/keys.py", "from ..network.esen import esen", 1),
        (
            "upward",
            "data/batch.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import esen_flows.cli",
            3,
        ),
        ("upward", "makers/core.py", "from esen_flows.testing import check_force_field", 1),
        ("upward", "helpers/a.py", "from esen_flows.errors import InputError", 1),
        ("upward", "__init__.py", "from esen_flows.forcefield.load import load_force_field", 1),
        ("upward", "__init__.py", "def f():\n    from esen_flows.store.connection import open_store", 2),
        ("stolen", "cli/app.py", "import os\nimport pymongo.errors", 2),
        ("stolen", "physics/relax.py", "from phonopy import Phonopy", 1),
        ("stolen", "makers/core.py", "try:\n    import fireworks\nexcept ImportError:\n    pass", 2),
        ("heavy", "store/blobs.py", "def f():\n    import torch", 2),
        ("heavy", "cli/app.py", "from torch import nn", 1),
        ("not_bare", "data/batch.py", "import scipy.spatial", 1),
        ("not_bare", "training/train.py", "def f():\n    import yaml", 2),
        ("not_bare", "network/esen/esen.py", "from esen_flows.schemas import documents", 1),
        ("not_bare", "forcefield/third_party/any_ase.py", "from sevenn.calculator import SevenNetCalculator", 1),
    ],
)
def test_rule_names_the_offending_line(rule: str, file: str, source: str, line: int, tmp_path: Path) -> None:
    # The modules that the offending lines name have to be modules for `from x import y` to count as x.y.
    for module in ("store/connection", "network/esen/esen", "schemas/documents", "cli/__init__"):
        path = tmp_path / "esen_flows" / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    path = tmp_path / "esen_flows" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    faults = RULES[rule](imports_of(path, tmp_path))
    assert [fault.partition(": ")[0] for fault in faults] == [f"esen_flows/{file}:{line}"]


def test_every_lazy_exception_is_used() -> None:
    found = [one for one in all_imports() if one.lazy or one.typing]
    lazy = {(one.file, name) for one in found for name in (one.top, one.module)}
    unused = [(file, name) for file, names in LAZY_IN_BARE_ROOMS.items() for name in names if (file, name) not in lazy]
    assert not unused, "remove these exceptions"


def test_shared_schemas_need_numpy_and_ase_only() -> None:
    own = {"esen_flows.errors", "esen_flows.schemas.atom_properties", "esen_flows.schemas.declarations"}
    for name in ("keys", "checkpoint_header", "atom_properties"):
        for found in imports_of(PACKAGE / "schemas" / f"{name}.py", ROOT):
            known = found.top in {"numpy", "ase"} | sys.stdlib_module_names or found.module in own
            assert known, f"{found.where}: imports {found.module}"


def test_structures_given_to_force_fields_need_ase_only() -> None:
    own = {"esen_flows.errors", "esen_flows.schemas.atom_properties", "esen_flows.structures.conversion"}
    for name in ("inputs", "conversion"):
        for found in imports_of(PACKAGE / "structures" / f"{name}.py", ROOT):
            known = found.top in BARE_PACKAGES or found.top in sys.stdlib_module_names or found.module in own
            assert known or found.lazy or found.typing, f"{found.where}: imports {found.module}"


def modules_in(room: str) -> list[str]:
    """Dotted names of all modules of a room."""
    paths = sorted((PACKAGE / room).rglob("*.py"))
    dotted = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    assert dotted, f"no modules in {room}"
    return dotted


def run_python(code: str, *arguments: str) -> str:
    """Standard output of a fresh interpreter; its error output on failure is the message of the test."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_leaves_torch_and_atomate2_out() -> None:
    modules = ["esen_flows.cli.app", *(module for room in NEVER_HEAVY for module in modules_in(room))]
    code = (
        "import importlib, json, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    loaded = set(json.loads(run_python(code, *modules).splitlines()[-1]))
    assert set(modules) <= loaded
    assert not loaded & set(HEAVY)


@cache
def names_absent_on_a_bare_machine() -> set[str]:
    """Top-level names that are installed here, but brought neither by the five packages nor by what they require."""
    wanted, queue = set(), list(BARE_PACKAGES)
    while queue:
        name = canonicalize_name(queue.pop())
        if name in wanted:
            continue
        wanted.add(name)
        requirements = [Requirement(line) for line in distribution(name).requires or []]
        queue += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return {
        module
        for module, distributions in packages_distributions().items()
        if not wanted & {canonicalize_name(name) for name in distributions}
    } - {"esen_flows"}


BARE_MACHINE = """
import importlib, sys
from importlib.abc import MetaPathFinder

absent, modules = (set(argument.split(",")) for argument in sys.argv[1:3])

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r} (on a bare machine)", name=name)

sys.meta_path.insert(0, Absent())
for module in sorted(modules):
    importlib.import_module(module)
"""


def test_bare_rooms_import_on_a_bare_machine() -> None:
    modules = [module for room in BARE_ROOMS for module in modules_in(room)]
    run_python(BARE_MACHINE, ",".join(sorted(names_absent_on_a_bare_machine())), ",".join(modules))


def test_bare_machine_is_bare() -> None:
    absent = names_absent_on_a_bare_machine()
    assert {"pydantic", "yaml", "pymongo", "phonopy"} <= absent
    assert not BARE_PACKAGES & absent
    with pytest.raises(AssertionError, match="on a bare machine"):
        run_python(BARE_MACHINE, ",".join(sorted(absent)), "esen_flows.schemas.documents")
