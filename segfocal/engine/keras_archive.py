"""What a ``.keras`` file holds, looked at without Keras, or before Keras makes it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segfocal.card_files import read_card
from segfocal.errors import ModelError

__all__ = ["check_classes", "hash_archive"]

_OURS = ("keras", "segfocal")
_CODE = ("Lambda", "__lambda__", "function")


def check_classes(path: str | Path) -> None:
    """Raise unless a model is made of layers of Keras, of segfocal, and registered ones only.

    A file names the modules and classes that Keras is to import and call. Layers of a user's
    own are let through when ``keras.saving.register_keras_serializable`` has made them known
    in this process.

    Raises:
        ModelError: It holds code, or a class of another origin.
    """
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    for entry in _objects(config):
        name, module = str(entry["class_name"]), str(entry.get("module") or "")
        known = str(entry.get("registered_name") or name)
        if name in _CODE:
            raise ModelError(
                f"{path}: holds code (a {name}), which is not run; expected layers of keras and "
                "segfocal: write it as a layer class and register it with "
                "keras.saving.register_keras_serializable"
            )
        if name.startswith("__"):  # data such as tensors and tuples
            continue
        origin = f"{module}.{name}" if module else known
        if module.split(".")[0] not in _OURS and not _is_registered(known):
            raise ModelError(
                f"{path}: holds a {origin}, which is neither of keras nor of segfocal; expected a "
                "file that segfocal saved: if the layer is yours, import the module that "
                "registers it first"
            )


def hash_archive(path: Path) -> str:
    """Return the sha256 of what a ``.keras`` file holds, whenever it was saved.

    Raises:
        ModelError: It is no such file.
    """
    read_card(path)  # raises for what is no model
    digest = hashlib.sha256()
    with zipfile.ZipFile(path) as archive:
        for name in sorted(set(archive.namelist()) - {"metadata.json"}):
            digest.update(f"{name}\n{archive.getinfo(name).file_size}\n".encode())
            with archive.open(name) as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a config that Keras would look up."""
    if isinstance(value, dict):
        if "class_name" in value and "config" in value:
            yield value
        for part in value.values():
            yield from _objects(part)
    elif isinstance(value, list):
        for part in value:
            yield from _objects(part)


def _is_registered(name: str) -> bool:
    import keras

    return keras.saving.get_registered_object(name) is not None
