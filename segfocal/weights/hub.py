"""Published checkpoints: where they are, and a folder that keeps them.

The network is used only by :func:`fetch`, only through ``huggingface_hub`` when that is
installed, and only when the file is not in the folder yet.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segfocal.errors import ModelError

__all__ = ["PUBLISHED", "HubFile", "cache_folder", "fetch", "sha256_of"]


@dataclass(frozen=True)
class HubFile:
    """A file in a repository of the Hugging Face hub.

    Attributes:
        repository: Identifier, ``owner/name``.
        name: Name of the file.
        sha256: Checksum that the file must have, when it is known beforehand.
    """

    repository: str
    name: str = "model.safetensors"
    sha256: str | None = None


# Identifiers from timm/models/focalnet.py. Checksums are pinned once somebody has compared a
# download with its publisher's; until then the hub's own report is what is verified.
PUBLISHED: dict[str, HubFile] = {
    f"focalnet_{name}": HubFile(f"timm/focalnet_{name}.{trained_on}")
    for trained_on, names in (
        (
            "ms_in1k",
            ("tiny_srf", "tiny_lrf", "small_srf", "small_lrf", "base_srf", "base_lrf"),
        ),
        (
            "ms_in22k",
            ("large_fl3", "large_fl4", "xlarge_fl3", "xlarge_fl4", "huge_fl3", "huge_fl4"),
        ),
    )
    for name in names
}
"""Published encoders by the name that :func:`segfocal.from_pretrained` takes."""


def cache_folder() -> Path:
    """Return the folder of downloads: ``SEGFOCAL_CACHE``, or ``segfocal`` in the user's cache."""
    chosen = os.environ.get("SEGFOCAL_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "segfocal"


def fetch(name: str, cache: str | Path | None = None) -> Path:
    """Return the path of a published checkpoint, downloading it when it is not there.

    Args:
        name: Key of :data:`PUBLISHED`.
        cache: Folder of downloads; left out, :func:`cache_folder`.

    Raises:
        ModelError: The file is neither there nor to be had (the message says which file to put
            where), or it is not the one its checksum promises.
    """
    wanted = PUBLISHED[name]
    folder = (cache_folder() if cache is None else Path(cache)) / wanted.repository.replace(
        "/", "--"
    )
    path = folder / wanted.name
    if not path.is_file():
        _download(wanted, path)
    if wanted.sha256 is not None and sha256_of(path) != wanted.sha256:
        raise ModelError(
            f"{path}: its sha256 is not {wanted.sha256}, which {name} has; remove it and fetch "
            f"{wanted.name} of {wanted.repository} again"
        )
    return path


def sha256_of(path: Path) -> str:
    """Return the checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(wanted: HubFile, path: Path) -> None:
    # Read when huggingface_hub is imported: it would report each download otherwise.
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise _fetch_by_hand(wanted, path, "huggingface_hub is not installed") from error
    try:
        # What is verified and what is downloaded must be one revision.
        revision = hub.HfApi().model_info(wanted.repository).sha
        (reported,) = hub.HfApi().get_paths_info(
            wanted.repository, [wanted.name], revision=revision
        )
        expected = reported.lfs.sha256
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download.", dir=path.parent) as folder:
            got = Path(
                hub.hf_hub_download(
                    wanted.repository, wanted.name, revision=revision, local_dir=folder
                )
            )
            if sha256_of(got) != expected:
                raise ModelError(
                    f"{wanted.name} of {wanted.repository}: the download's sha256 is not "
                    f"{expected}, which the hub reports; nothing was kept: try again"
                )
            os.replace(got, path)
    except ModelError:
        raise
    except Exception as error:  # the library's errors have no root of their own
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _fetch_by_hand(wanted, path, f"it cannot be downloaded ({first})") from error


def _fetch_by_hand(wanted: HubFile, path: Path, why: str) -> ModelError:
    return ModelError(
        f"{wanted.repository}: {why}, and {path} is not there; fetch the file {wanted.name} of "
        f"the Hugging Face repository {wanted.repository} on any machine and put it there, or "
        "set SEGFOCAL_CACHE to the folder that holds "
        f"{wanted.repository.replace('/', '--')}/{wanted.name}"
    )
