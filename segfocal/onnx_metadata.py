"""The metadata of an ONNX file, read without the onnx package.

An ONNX file is one protobuf message, a sequence of fields: a tag, which is the field's
number and wire type, and a value. The network is one field of many megabytes that is stepped
over; each metadata entry is another, a message of two texts. Reference: protobuf's encoding,
and ``ModelProto`` in onnx.proto, whose field 14 is ``metadata_props``.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import BinaryIO

from segfocal.errors import ModelError

__all__ = ["hash_onnx", "read_onnx_metadata"]

METADATA_PROPS = 14
GRAPH = 7

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_onnx_metadata(path: str | Path) -> dict[str, str]:
    """Return the metadata of an ONNX file.

    Raises:
        ModelError: The file cannot be read, is cut short, or is no ONNX model.
    """
    pairs: dict[str, str] = {}
    graphs = 0
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            while file.tell() < size:
                number, wire, length = _field(file)
                end = file.tell() + length
                if end > size:
                    raise ValueError("cut short")
                if (number, wire) == (METADATA_PROPS, _BYTES):
                    key, value = _texts(file.read(length))
                    pairs[key] = value
                graphs += (number, wire) == (GRAPH, _BYTES)
                file.seek(end)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: damaged or no ONNX model ({error}); export it again") from error
    if graphs != 1:
        raise ModelError(f"{path}: no ONNX model; expected one made by `segfocal export`")
    return pairs


def hash_onnx(path: str | Path, key: str) -> str:
    """Return the sha256 of an ONNX file without one of its metadata entries.

    That entry can then hold the hash.

    Args:
        path: The file.
        key: Key of the entry, or entries, to leave out.

    Returns:
        64 hexadecimal digits.

    Raises:
        ModelError: The file cannot be read or is no ONNX model.
    """
    digest = hashlib.sha256()
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            while (start := file.tell()) < size:
                number, wire, length = _field(file)
                end = file.tell() + length
                is_entry = (number, wire) == (METADATA_PROPS, _BYTES)
                if is_entry and _texts(file.read(length))[0] == key:
                    continue
                file.seek(start)
                while start < end and (block := file.read(min(1 << 20, end - start))):
                    digest.update(block)
                    start += len(block)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: damaged or no ONNX model ({error}); export it again") from error
    return digest.hexdigest()


def _field(file: BinaryIO) -> tuple[int, int, int]:
    """Read a tag; return field number, wire type and length in bytes of the value ahead."""
    tag = _varint(file)
    number, wire = tag >> 3, tag & 7
    if wire == _VARINT:
        _varint(file)
        return number, wire, 0
    if wire == _BYTES:
        return number, wire, _varint(file)
    if wire in (_FIXED64, _FIXED32):
        return number, wire, 8 if wire == _FIXED64 else 4
    raise ValueError(f"wire type {wire}")


def _varint(file: BinaryIO) -> int:
    """Read an integer of 7 bits per byte, the lowest first; the top bit says "more"."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("cut short")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number of more than ten bytes")


def _texts(entry: bytes) -> tuple[str, str]:
    """Return key and value of a ``StringStringEntryProto``: its fields 1 and 2."""
    file = io.BytesIO(entry)
    texts = {1: "", 2: ""}
    while file.tell() < len(entry):
        number, wire, length = _field(file)
        part = file.read(length)
        if len(part) < length:
            raise ValueError("cut short")
        if wire == _BYTES:
            texts[number] = part.decode("utf-8")
    return texts[1], texts[2]
