"""The two inputs of every segfocal network."""

from __future__ import annotations

from typing import Any

from keras import ops

__all__ = ["with_valid"]


def with_valid(inputs: Any) -> dict[str, Any]:
    """Return ``{"image", "valid"}`` for an image alone, a dict without ``valid``, or both.

    Args:
        inputs: Image ``(batch, *space, channels)``, or a dict with ``image`` and optionally
            ``valid`` ``(batch, *space)``; where that is left out everything is valid.
    """
    if not isinstance(inputs, dict):
        inputs = {"image": inputs}
    if inputs.get("valid") is None:
        image = ops.convert_to_tensor(inputs["image"])
        return {"image": image, "valid": ops.ones(ops.shape(image)[:-1], dtype="bool")}
    return {"image": inputs["image"], "valid": inputs["valid"]}
