"""What the predictors of exported models share: what they accept, and loading them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from segfocal.card_files import CONTENT_HASH, ModelFacts, read_facts
from segfocal.errors import ModelError, SegfocalError
from segfocal.onnx_metadata import hash_onnx

__all__ = [
    "PROBABILITIES",
    "Conversion",
    "check_signature",
    "hash_files",
    "loading",
    "read_exported_facts",
]

PROBABILITIES = "probabilities"
"""Name of the output of exported models, and what it is."""


@dataclass(frozen=True)
class Conversion:
    """That an exported model was made in passing, to stand for the Keras model.

    Its hash is the Keras model's then: the files are not the same each time they are made.

    Attributes:
        converter: What made it, with its version.
    """

    converter: str


def read_exported_facts(path: Path) -> ModelFacts:
    """Return the facts of an exported model whose output can be used.

    Raises:
        ModelError: It has none, returns something else, or is an ONNX file that is not as it
            was written.
    """
    facts = read_facts(path)
    # Runtimes notice no flipped bit in the weights; files of earlier versions have no hash.
    if facts.content_hash is not None and hash_onnx(path, CONTENT_HASH) != facts.content_hash:
        raise ModelError(
            f"{path}: is damaged, or was changed since it was exported; export it again, or, if it "
            f"was changed on purpose, remove {CONTENT_HASH} from its metadata"
        )
    if facts.output != PROBABILITIES:
        raise ModelError(
            f"{path}: returns {facts.output or 'something unnamed'!r}; this segfocal reads models "
            f"that return {PROBABILITIES}: update segfocal or export it again"
        )
    return facts


def check_signature(path: Path, inputs: set[str], outputs: set[str]) -> None:
    """Raise ``ModelError`` unless a network has the inputs and the output it should have."""
    for what, found, expected in (
        ("inputs", inputs, {"image", "valid"}),
        ("outputs", outputs, {PROBABILITIES}),
    ):
        if found != expected:
            raise ModelError(
                f"{path}: the network's {what} are {', '.join(sorted(found)) or 'none'}; expected "
                f"{', '.join(sorted(expected))}: export the model with `segfocal export`"
            )


@contextmanager
def loading(path: Path, engine: str) -> Iterator[None]:
    """Turn whatever a runtime raises on a file it cannot use into a ``ModelError``."""
    try:
        yield
    except (SegfocalError, MemoryError):
        raise
    except Exception as error:  # runtimes raise kinds of their own
        text = " ".join(str(error).split()) or type(error).__name__
        if len(text) > 300:
            text = text[:300] + "..."
        raise ModelError(
            f"{path}: {engine} cannot load this model ({text}); export it again"
        ) from error


def hash_files(*paths: Path) -> str:
    """Return the sha256 of files one after another, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.stat().st_size.to_bytes(8, "little"))
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
