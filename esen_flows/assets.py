"""Location of the data folders `models/`, `workflows/` and `launchers/`.

The folder of a checkout is used before the packaged copy, because an editable install leaves a stale `_data` behind.
"""

import tomllib
from pathlib import Path
from typing import Literal

Folder = Literal["models", "workflows", "launchers"]


def asset_dir(folder: Folder) -> Path:
    """Path of a data folder, in the checkout or in the installed package.

    Parameters
    ----------
    folder
        Name of the folder.

    Returns
    -------
    Path
        Path of the folder, which exists.

    Raises
    ------
    FileNotFoundError
        Neither the checkout nor the installed package has the folder.
    """
    package = Path(__file__).resolve().parent
    project = package.parent / "pyproject.toml"
    candidates = [package / "_data" / folder]
    if project.is_file() and tomllib.loads(project.read_text()).get("project", {}).get("name") == "esen_flows":
        candidates.insert(0, package.parent / folder)
    for path in candidates:
        if path.is_dir():
            return path
    raise FileNotFoundError(f"no {folder!r} folder beside the package; looked in {', '.join(map(str, candidates))}")
