"""Where the data folders are: `models/`, `workflows/`, `launchers/`.

A checkout's own folder wins over the packaged copy: an editable install leaves a stale `_data` behind.
"""

import tomllib
from pathlib import Path
from typing import Literal

Folder = Literal["models", "workflows", "launchers"]


def _checkout() -> Path | None:
    root = Path(__file__).resolve().parent.parent
    project = root / "pyproject.toml"
    if project.is_file() and tomllib.loads(project.read_text()).get("project", {}).get("name") == "esen_flows":
        return root
    return None


def asset_dir(folder: Folder) -> Path:
    """Path of a data folder, in the checkout or in the installed package.

    Raises
    ------
    FileNotFoundError
        when neither has it.
    """
    candidates = [Path(__file__).resolve().parent / "_data" / folder]
    checkout = _checkout()
    if checkout is not None:
        candidates.insert(0, checkout / folder)
    for path in candidates:
        if path.is_dir():
            return path
    raise FileNotFoundError(f"no {folder!r} folder beside the package; looked in {', '.join(map(str, candidates))}")
