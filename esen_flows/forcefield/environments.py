"""Environments of calculator cards: a folder below the user's data with a Python, the package and what it needs."""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esen_flows.data.download import Progress
from esen_flows.errors import ModelError
from esen_flows.files import sha256_of_file, written_whole

if TYPE_CHECKING:
    from esen_flows.schemas.model_card import ModelCard

Say = Callable[[str], None]
_STAMP = "esen_flows.json"  # written last: without it the environment is not complete
_INDEX_VARIABLE = "ESEN_FLOWS_TORCH_INDEX"  # set but empty, as in setup.sh: torch from pip's own index, CUDA or not
_CPU_TORCH = "https://download.pytorch.org/whl/cpu"


def environment_folder(card: "ModelCard") -> Path:
    """Folder of a card's environment, which it shares with cards of the same package, version and requirements.

    Parameters
    ----------
    card
        Card of family `calculator`.

    Returns
    -------
    Path
        Folder below the user's data directory; it need not exist.
    """
    from esen_flows.settings import get_settings  # pydantic, which a bare machine lacks

    recipe, package = card.in_own_environment
    return get_settings().data_dir / "environments" / recipe.environment_name(package)


def is_installed(card: "ModelCard") -> bool:
    """Whether a card's environment and checkpoint are on this machine.

    Parameters
    ----------
    card
        Card of family `calculator`.

    Returns
    -------
    bool
        Whether `models install` has completed and its interpreter is still there; nothing else is verified here.
    """
    return _is_usable(_stamped_python(card)) and (card.source is None or _fetched(card).is_file())


def _stamped_python(card: "ModelCard") -> Path | None:
    """Interpreter of a complete environment; None: it was not made."""
    stamp = environment_folder(card) / _STAMP
    return Path(json.loads(stamp.read_text())["python"]) if stamp.is_file() else None


def _is_usable(python: Path | None) -> bool:
    return python is not None and os.access(python, os.X_OK)


def environment_python(card: "ModelCard") -> Path:
    """Interpreter of a card's environment.

    Parameters
    ----------
    card
        Card of family `calculator`.

    Returns
    -------
    Path
        Its Python.

    Raises
    ------
    ModelError
        The environment was not made, or its interpreter is gone.
    """
    python = _stamped_python(card)
    if python is None:
        raise ModelError(f"{card.name!r} computes in an environment of its own: esen-flows models install {card.name}")
    if not _is_usable(python):
        raise ModelError(
            f"{python}, the interpreter of {card.name!r}, is gone; run esen-flows models install {card.name}"
        )
    return python


def fetched_checkpoint(card: "ModelCard") -> Path:
    """Path of a calculator's published checkpoint, with its sha256 verified.

    Parameters
    ----------
    card
        Card of family `calculator` with a source.

    Returns
    -------
    Path
        Path of the file.

    Raises
    ------
    ModelError
        It was not fetched, or its bytes are not those of the card.
    """
    path = _fetched(card)
    if not path.is_file():
        raise ModelError(
            f"the checkpoint of {card.name!r} is not on this machine: esen-flows models install {card.name}"
        )
    assert card.source is not None
    found = sha256_of_file(path)
    if found != card.source.sha256:
        raise ModelError(
            f"{path} is damaged: sha256 {found[:16]}..., not that of its card; remove it and install again"
        )
    return path


def _fetched(card: "ModelCard") -> Path:
    from esen_flows.schemas.card import pulled_folder

    assert card.source is not None
    return pulled_folder(card) / card.source.filename


def install(
    card: "ModelCard", *, python: Path | None = None, say: Say = print, progress: Progress | None = None
) -> Path:
    """Make the environment of a card and fetch its checkpoint; after an interruption the same call goes on.

    Parameters
    ----------
    card
        Card of family `calculator`.
    python
        Interpreter of an existing environment to use, in which nothing is installed.
    say
        Told what is done next.
    progress
        Told of the bytes of the checkpoint.

    Returns
    -------
    Path
        Interpreter of the environment.

    Raises
    ------
    ModelError
        No suitable Python, a package cannot be had, CUDA packages would be installed on a machine without a GPU, or the
        checkpoint cannot be fetched. The message ends with the remedy.
    """
    if card.calculator is None:
        raise ModelError(f"{card.name!r} is of family {card.family!r}, which needs no environment: nothing to install")
    recipe, package = card.in_own_environment
    folder = environment_folder(card)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(folder.name + ".lock"), say):
        if python is None and not _is_usable(_stamped_python(card)):
            python = _make(card, folder, say)
        if python is not None:
            installed = _installed(python)
            found = installed.get(_normal(package))
            if not recipe.paths and found != recipe.version:
                raise ModelError(f"{python} has {package} {found}, the card of {card.name!r} says {recipe.version}")
            folder.mkdir(exist_ok=True)
            with written_whole(folder / _STAMP) as temporary:
                temporary.write_text(json.dumps({"python": str(python), "installed": installed}, indent=1))
        found_python = environment_python(card)
        if card.source is not None and not _fetched(card).is_file():
            say(f"fetching {card.source.filename}")
            from esen_flows.forcefield.pull import fetch  # imports torch, which a listing of the models must not

            _fetched(card).parent.mkdir(parents=True, exist_ok=True)
            fetch(card.source, _fetched(card), progress)
        if card.source is not None:
            fetched_checkpoint(card)
    return found_python


@contextlib.contextmanager
def _locked(path: Path, say: Say) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that makes this environment")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(card: "ModelCard", folder: Path, say: Say) -> Path:
    """Make the environment, or complete what an interrupted call left of it."""
    recipe, package = card.in_own_environment
    python = folder / "bin" / "python"
    if not (python.exists() and _runs(python, "import pip")):
        shutil.rmtree(folder, ignore_errors=True)
        base = _base_python(recipe.python, card.name)
        say(f"making {folder} on {base}")
        _run([base, "-m", "venv", str(folder)], f"an environment on {base} cannot be made")
    if recipe.torch is not None:
        index = [] if _has_gpu() else _torch_index(say)
        if not index and not _has_gpu() and os.environ.get(_INDEX_VARIABLE) != "":
            _refuse_cuda(python, [recipe.torch], card.name)
        say(f"installing {recipe.torch} from {index[-1] if index else 'the default index of pip'}")
        _pip(python, [*index, recipe.torch], card.name)
    own = [] if recipe.paths else [f"{package}=={recipe.version}"]
    together = [*recipe.requirements, *(own if recipe.dependencies == "resolved" else [])]
    kept = [f"torch=={_installed(python)['torch']}"] if recipe.torch is not None else []  # no resolver may replace it
    if together:
        say(f"installing {' '.join(together)} and what they need")
        if not _has_gpu():
            _refuse_cuda(python, [*together, *kept], card.name)
        _pip(python, [*together, *kept], card.name)
    if recipe.dependencies == "listed" and own:
        _pip(python, ["--no-deps", *own], card.name)
    return python


def _base_python(versions: Sequence[str], name: str) -> str:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in ([sys.executable] if here in versions else []) + [f"python{version}" for version in versions]:
        path = shutil.which(candidate)
        if path is not None and _runs(Path(path), "import ensurepip, venv"):
            return path
    raise ModelError(
        f"{name!r} needs Python {' or '.join(versions)} with the venv module, and none is on PATH; install one, or "
        "name an environment that has its package: --python"
    )


def _runs(python: Path, code: str) -> bool:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run([python, "-I", "-c", code], capture_output=True, timeout=60).returncode == 0
    return False


def _has_gpu() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def _torch_index(say: Say) -> list[str]:
    """Options of pip for the CPU wheels of torch, by the variable of setup.sh; PyPI's bring gigabytes of CUDA."""
    from esen_flows.settings import get_settings

    given = get_settings().torch_index
    if given is not None:
        return ["--index-url", given]
    if os.environ.get(_INDEX_VARIABLE) == "":  # settings take an empty variable for one that is not set
        return []
    try:
        urllib.request.urlopen(urllib.request.Request(f"{_CPU_TORCH}/torch/", method="HEAD"), timeout=5).close()
    except (urllib.error.URLError, OSError):
        say(f"{_CPU_TORCH} cannot be reached; taking torch from the default index of pip")
        return []
    return ["--index-url", _CPU_TORCH]


def _refuse_cuda(python: Path, requirements: Sequence[str], name: str) -> None:
    """Refuse what would bring CUDA libraries onto a machine without a GPU, before anything is downloaded."""
    report = _pip(python, ["--dry-run", "--report", "-", *requirements], name)
    found = sorted(each["metadata"]["name"] for each in json.loads(report)["install"])
    cuda = [each for each in found if each.lower().startswith("nvidia-") or "-cuda" in each.lower()]
    if cuda:
        raise ModelError(
            f"{name!r} would install {', '.join(cuda)} on a machine without a GPU. If they come with torch, set "
            f"{_INDEX_VARIABLE} to an index of CPU wheels, or to nothing to accept them; else list the requirements on "
            "the card (dependencies: listed), or name an environment with --python"
        )


def _pip(python: Path, arguments: Sequence[str], name: str) -> str:
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--retries", "2"]
    wanted = " ".join(each for each in arguments if not each.startswith("-"))
    failure = (
        f"pip cannot install {wanted} for {name!r}; without a network, name an environment that has the package: "
        "--python. The same command goes on where this one ended"
    )
    return _run([str(python), "-I", "-m", "pip", "install", *options, *arguments], failure)


def _run(command: Sequence[str], failure: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise ModelError(f"{failure}: {(done.stderr or done.stdout).strip()[-1500:]}")
    return done.stdout


def _installed(python: Path) -> dict[str, Any]:
    """Versions of the distributions that an interpreter finds, by normalised names: provenance, never part of a key."""
    code = (
        "import importlib.metadata as m, json; "
        "print(json.dumps({d.metadata['Name']: d.version for d in m.distributions() if d.metadata['Name']}))"
    )
    found = json.loads(_run([str(python), "-I", "-c", code], f"{python} does not run"))
    return {_normal(name): version for name, version in sorted(found.items())}


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
