"""Checkpoints of PyTorch (``.bin``, ``.pth``) read without PyTorch and without executing them.

``torch.save`` writes a zip archive: ``data.pkl``, a pickle of the state with its tensors
described by storage, offset, size and stride, and one entry ``data/KEY`` of raw numbers per
storage. A pickle may name any function for its reader to call; the one here knows a closed
list of names, replaces each by an inert construction of its own, and refuses every other.
Format: pytorch/pytorch, ``torch/serialization.py`` and ``torch/_utils.py``.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from segfocal.errors import ModelError

__all__ = ["StoredTensor", "open_torch_archive"]

_DTYPES: dict[str, Any] = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class _Fixed:
    """What a pickle may hold but not alter: it can ask for any object's state to be set."""

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it alters what it was given")


class _State(dict[Any, Any]):
    """Stands for ``collections.OrderedDict``; attributes that a pickle sets are dropped."""

    def __setstate__(self, state: object) -> None:
        pass


class _Inert(_Fixed):
    """What a known name in a pickle becomes: one function, and nothing else to reach."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)


@dataclass(frozen=True)
class _StorageType(_Fixed):
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _Storage(_Fixed):
    key: str
    dtype: np.dtype[Any]
    numel: int


@dataclass(frozen=True)
class StoredTensor(_Fixed):
    """A tensor that still lies in its archive.

    Attributes:
        shape: Lengths of its axes.
    """

    shape: tuple[int, ...]
    _strides: tuple[int, ...]
    _offset: int
    _storage: _Storage
    _archive: _Archive

    def read(self) -> NDArray[Any]:
        """Return the numbers as an array of their own.

        Raises:
            ModelError: The archive is damaged.
        """
        numbers = self._archive.numbers(self._storage)
        reach = 1 + sum(
            (side - 1) * step for side, step in zip(self.shape, self._strides, strict=True)
        )
        if 0 in self.shape:
            reach = 0
        if self._offset + reach > numbers.size:
            raise self._archive.damaged("a tensor reaches past the end of its storage")
        steps = tuple(step * numbers.itemsize for step in self._strides)
        view = np.lib.stride_tricks.as_strided(
            numbers[self._offset :], self.shape, steps, writeable=False
        )
        return np.array(view)


def _rebuild_tensor(archive: _Archive) -> Callable[..., StoredTensor]:
    def rebuild(
        storage: object, offset: object, size: object, stride: object, *rest: object
    ) -> StoredTensor:
        if not (
            isinstance(storage, _Storage)
            and isinstance(offset, int)
            and isinstance(size, tuple)
            and isinstance(stride, tuple)
            and len(size) == len(stride)
            and all(isinstance(number, int) and number >= 0 for number in (offset, *size, *stride))
        ):
            raise pickle.UnpicklingError("a tensor is described in an unknown way")
        if math.prod(size) > storage.numel:
            # Expanded tensors repeat numbers; no checkpoint needs them.
            raise pickle.UnpicklingError("a tensor is larger than its storage")
        return StoredTensor(size, stride, offset, storage, archive)

    return rebuild


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, archive: _Archive) -> None:
        super().__init__(file, encoding="utf-8")
        self._known: dict[tuple[str, str], object] = {
            ("collections", "OrderedDict"): _Inert(lambda *items: _State(*items)),
            ("torch._utils", "_rebuild_tensor_v2"): _Inert(_rebuild_tensor(archive)),
            ("torch._utils", "_rebuild_parameter"): _Inert(lambda tensor, *rest: tensor),
            ("torch", "Size"): _Inert(lambda sides=(): tuple(sides)),
            **{
                ("torch", name): _StorageType(np.dtype(dtype).newbyteorder(archive.byteorder))
                if dtype is not ml_dtypes.bfloat16
                else _StorageType(np.dtype(dtype))
                for name, dtype in _DTYPES.items()
            },
        }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._known[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which no list of tensors needs"
            ) from None

    def persistent_load(self, pid: object) -> _Storage:
        match pid:
            case ("storage", _StorageType(dtype=dtype), str(key), str(_), int(numel)):
                return _Storage(key, dtype, numel)
        raise pickle.UnpicklingError("a storage is described in an unknown way")


class _Archive:
    """An open zip archive of ``torch.save``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._zip() as archive:
            names = archive.namelist()
            pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
            if len(pickles) != 1:
                raise ModelError(
                    f"{path}: is a zip archive without one data.pkl; expected a checkpoint written "
                    "by torch.save, safetensors, or an encoder written by segfocal"
                )
            self.root = pickles[0].removesuffix("data.pkl")
            order = f"{self.root}byteorder"
            big = order in names and archive.read(order).strip() == b"big"
            self.byteorder: Any = ">" if big else "<"

    def load(self) -> Any:
        """Return the pickled object, its tensors as :class:`StoredTensor`."""
        try:
            with self._zip() as archive, archive.open(f"{self.root}data.pkl") as file:
                return _Unpickler(file, self).load()  # type: ignore[arg-type]
        except ModelError:
            raise
        except pickle.UnpicklingError as error:
            raise ModelError(
                f"{self.path}: refused: {error}; nothing of it was executed: save the network's "
                "state_dict alone, best as safetensors"
            ) from error
        except Exception as error:  # a damaged pickle raises whatever its bytes happen to mean
            raise self.damaged(f"{type(error).__name__} while it was read") from error

    def numbers(self, storage: _Storage) -> NDArray[Any]:
        """Return all numbers of a storage."""
        name = f"{self.root}data/{storage.key}"
        size = storage.numel * storage.dtype.itemsize
        try:
            with self._zip() as archive:
                info = archive.getinfo(name)
                if info.compress_type != zipfile.ZIP_STORED or info.file_size < size:
                    raise self.damaged(f"entry {name} is compressed or too short")
                data = archive.read(name)
        except (KeyError, zipfile.BadZipFile, OSError, EOFError) as error:
            raise self.damaged(f"entry {name}: {error}") from error
        return np.frombuffer(data, storage.dtype, storage.numel)

    def damaged(self, what: str) -> ModelError:
        return ModelError(
            f"{self.path}: damaged checkpoint: {what}; expected a complete file as torch.save "
            "wrote it: fetch it again"
        )

    def _zip(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError) as error:
            raise ModelError(
                f"{self.path}: damaged zip archive ({error}); fetch the file again"
            ) from error


def open_torch_archive(path: Path) -> Any:
    """Return what ``torch.save`` wrote, with tensors as :class:`StoredTensor`.

    Args:
        path: A zip-format checkpoint.

    Returns:
        Dictionaries, lists, numbers and text as saved; tensors are read when asked.

    Raises:
        ModelError: The file is damaged, or holds anything but plain data and tensors.
    """
    return _Archive(path).load()
