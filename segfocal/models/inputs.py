"""The inputs of every segfocal network."""

from __future__ import annotations

from typing import Any

from keras import ops

__all__ = ["with_valid"]


def with_valid(inputs: Any, frozen: bool = False) -> dict[str, Any]:
    """Return ``{"image", "valid"}`` for an image alone, a dict without ``valid``, or both.

    Args:
        inputs: Image ``(batch, *space, channels)``, or a dict with ``image`` and optionally
            ``valid`` ``(batch, *space)``; where that is left out everything is valid.
        frozen: The network also has an input ``context``, the frozen means of a scan.

    Raises:
        ValueError: ``context`` is needed and was not given.
    """
    if not isinstance(inputs, dict):
        inputs = {"image": inputs}
    found = {"image": inputs["image"], "valid": inputs.get("valid")}
    if found["valid"] is None:
        image = ops.convert_to_tensor(inputs["image"])
        found = {"image": image, "valid": ops.ones(ops.shape(image)[:-1], dtype="bool")}
    if frozen:
        if inputs.get("context") is None:
            raise ValueError(
                'global_context="frozen" needs a third input "context", the means of the scan; '
                "measure them with segfocal.calibrate"
            )
        found["context"] = inputs["context"]
    return found
