"""Checkpoint files: named arrays out of safetensors, PyTorch archives and folders of them."""

from __future__ import annotations

import importlib
import json
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfocal.errors import ModelError
from segfocal.weights.torch_archive import StoredTensor, open_torch_archive

__all__ = ["Checkpoint", "is_keras_file", "read_checkpoint"]

_FILES = ("model.safetensors", "pytorch_model.bin")
"""What a checkpoint folder may hold, in the order of preference; ``.index.json`` when sharded."""

_WRAPPERS = ("model", "state_dict")
"""Keys under which training scripts keep the network's state beside other things."""


@dataclass(frozen=True)
class Checkpoint:
    """Arrays by name, as their source calls them.

    Attributes:
        path: The file or folder that was asked for.
        files: The files that were read.
        tensors: Name to float32 array, in the source's axis order.
        config: Content of a Hugging Face ``config.json`` of a FocalNet, or empty.
        processor: Content of ``preprocessor_config.json``, or empty.
    """

    path: Path
    files: tuple[Path, ...]
    tensors: Mapping[str, NDArray[np.float32]]
    config: Mapping[str, Any]
    processor: Mapping[str, Any]


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of any kind that FocalNets are published in; nothing is executed.

    Args:
        path: A safetensors file, a PyTorch file (zip format; the older format needs PyTorch
            and its restricted unpickler), or a Hugging Face folder.

    Raises:
        ModelError: There is no such file, it is damaged, holds more than tensors, or holds
            numbers that are not finite.
    """
    path = Path(path)
    if path.is_dir():
        folder, files = path, _files_of(path)
    elif path.is_file():
        folder, files = path.parent, (path,)
    else:
        raise ModelError(f"{path}: no such file; expected a checkpoint file or folder")
    tensors: dict[str, NDArray[np.float32]] = {}
    for file in files:
        for name, array in _read_file(file):
            tensors[name] = _finite(file, name, array)
    config = _json(folder / "config.json")
    return Checkpoint(
        path,
        files,
        tensors,
        config if config.get("model_type") == "focalnet" else {},
        _json(folder / "preprocessor_config.json"),
    )


def is_keras_file(path: Path) -> bool:
    """Return whether a file is a ``.keras`` archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "metadata.json" in archive.namelist() and "config.json" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def _files_of(folder: Path) -> tuple[Path, ...]:
    for name in _FILES:
        if (folder / name).is_file():
            return (folder / name,)
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = _json(index).get("weight_map")
            if not isinstance(shards, dict) or not shards:
                raise ModelError(f"{index}: names no files; expected a weight_map")
            names = sorted({str(shard) for shard in shards.values()})
            for shard in names:
                if Path(shard).name != shard or not (folder / shard).is_file():
                    raise ModelError(f"{index}: names {shard!r}; expected a file in {folder}")
            return tuple(folder / shard for shard in names)
    raise ModelError(f"{folder}: holds no checkpoint; expected {' or '.join(_FILES)}")


def _read_file(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error})") from error
    if start[:4] == b"PK\x03\x04":
        yield from _state(path, open_torch_archive(path))
    elif start[8:9] == b"{":
        yield from _read_safetensors(path)
    elif start[:1] == b"\x80":
        yield from _state(path, _load_legacy(path))
    else:
        raise ModelError(
            f"{path}: is no checkpoint; expected safetensors, or a file written by torch.save"
        )


def _read_safetensors(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    import ml_dtypes  # noqa: F401  (teaches NumPy the name bfloat16)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118  (no mapping)
                yield name, file.get_tensor(name)
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ModelError(f"{path}: damaged safetensors file ({text}); fetch it again") from error


def _load_legacy(path: Path) -> Any:
    """Load the format before PyTorch 1.6, which only PyTorch's restricted unpickler can."""
    try:
        # Imported by name: PyTorch is no dependency, and this the only place that knows it.
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise ModelError(
            f"{path}: is in PyTorch's format before 1.6, which needs PyTorch to be read: install "
            "torch, or save it again there as safetensors"
        ) from error
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < (2, 6):
        raise ModelError(
            f"{path}: needs PyTorch 2.6 or newer, whose restricted unpickler is safe (found "
            f"{torch.__version__}); update torch, or save the file again as safetensors"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        # Not PyTorch's words: they advise to execute the file.
        raise ModelError(
            f"{path}: PyTorch's restricted unpickler refuses this file, and nothing of it was "
            f"executed ({type(error).__name__}); expected a checkpoint of tensors alone"
        ) from error


def _state(path: Path, found: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    for wrapper in _WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not found:
        raise ModelError(
            f"{path}: holds a {type(found).__name__}; expected a network's state_dict, or a "
            f"dictionary with one under {' or '.join(map(repr, _WRAPPERS))}"
        )
    for name, value in found.items():
        if isinstance(value, StoredTensor):
            yield str(name), value.read()
        elif hasattr(value, "detach"):  # PyTorch's own, from the legacy format
            yield str(name), value.detach().to(importlib.import_module("torch").float32).numpy()
        else:
            raise ModelError(f"{path}: {name} is a {type(value).__name__}; expected tensors only")


def _finite(path: Path, name: str, array: NDArray[Any]) -> NDArray[np.float32]:
    result = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(result).all():
        raise ModelError(f"{path}: {name} holds NaN or infinity; expected finite weights")
    return result


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: is no JSON ({error})") from error
    return found if isinstance(found, dict) else {}
