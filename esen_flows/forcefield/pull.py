"""Published checkpoints, downloaded from the address on their card, verified, and converted once."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from esen_flows.data.download import DownloadError, Progress, download
from esen_flows.errors import ModelError
from esen_flows.files import sha256_of_file, written_whole
from esen_flows.forcefield.checkpoint import save
from esen_flows.forcefield.converted import read_published

if TYPE_CHECKING:
    from esen_flows.schemas.model_card import ModelCard, PublishedSource


def pull(card: "ModelCard", *, progress: Progress | None = None) -> Path:
    """Download, verify and convert the checkpoint of a card; a file that is there is not downloaded again.

    The file comes from the address on the card or, with ESEN_FLOWS_MODEL_MIRROR, from that folder or from below that
    URL. A file with restricted access needs ESEN_FLOWS_HUB_TOKEN or HF_TOKEN.

    Parameters
    ----------
    card
        Model card with a source.
    progress
        Function that is called with the bytes so far and the bytes in all (None: not known).

    Returns
    -------
    Path
        Path of the native checkpoint.

    Raises
    ------
    ModelError
        The card has no source, access is refused, there is no network (the message says where to get the file and
        where to put it), the checksum is wrong, or the file cannot be converted.
    """
    from esen_flows.schemas.card import pulled_folder  # pydantic, which a bare machine lacks

    source = card.source
    if card.calculator is not None:
        raise ModelError(f"{card.name!r} computes in an environment of its own: esen-flows models install {card.name}")
    if source is None:
        raise ModelError(f"model {card.name!r} has no address to download from: nothing to pull")
    folder = pulled_folder(card)
    native = folder / f"{card.name}.safetensors"
    if native.is_file():
        return native
    folder.mkdir(parents=True, exist_ok=True)
    fetched = folder / source.filename
    if not fetched.is_file():
        fetch(source, fetched, progress)
    found = sha256_of_file(fetched)
    if source.sha256 not in (None, found):
        raise ModelError(
            f"{fetched} has sha256 {found[:16]}..., its card names {str(source.sha256)[:16]}...: damaged or another "
            "version; remove it and run this again"
        )
    checkpoint = read_published(fetched, options=source.options)
    checkpoint.training["converted_from"].update(url=source.url, sha256=found)
    save(native, checkpoint)
    return native


def fetch(source: "PublishedSource", path: Path, progress: Progress | None) -> None:
    """Download a published file from its address, or copy it from the mirror.

    Parameters
    ----------
    source
        Address and sha256 of the file.
    path
        File to write; its folder exists.
    progress
        Function that is called with the bytes so far and the bytes in all (None: not known).

    Raises
    ------
    ModelError
        There is no such file, no network or no access; the message says how to get it by hand.
    """
    from esen_flows.settings import get_settings

    mirror, secret = get_settings().model_mirror, get_settings().hub_token
    if mirror is not None and not mirror.startswith(("http://", "https://")):
        copy = Path(mirror).expanduser() / source.filename
        if not copy.is_file():
            raise ModelError(f"the mirror has no {copy}; put the file there, or unset ESEN_FLOWS_MODEL_MIRROR")
        with written_whole(path) as temporary:
            shutil.copyfile(copy, temporary)
        return
    url = source.url if mirror is None else f"{mirror.rstrip('/')}/{source.filename}"
    own_host = urlsplit(url).netloc == urlsplit(source.url).netloc  # a mirror must not get the token
    token = secret.get_secret_value() if secret is not None and own_host else None
    by_hand = f"By hand: get {source.filename} from {source.page}, put it at {path}, and run the same command again."
    try:
        download(url, path, sha256=source.sha256, token=token, progress=progress)
    except DownloadError as error:
        access = ""
        if error.status in (401, 403):
            said = "the token was refused" if token else "it wants a token"
            access = f"; {said}: ask for access at {source.page}, then set ESEN_FLOWS_HUB_TOKEN"
        raise ModelError(f"{error}{access}. {by_hand}") from error
