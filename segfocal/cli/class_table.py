"""A table of what each class of a label map covers, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["class_table"]


def class_table(classes: Sequence[dict[str, Any]], invalid_pixels: int = 0) -> str:
    """Return the table, without a newline at its end.

    Args:
        classes: Per class ``value``, ``name``, ``pixels`` and, where known, ``hectares`` or
            ``millilitres``.
        invalid_pixels: Pixels without a label.
    """
    volume = any("millilitres" in label for label in classes)
    area = any("hectares" in label for label in classes)
    labelled = sum(label["pixels"] for label in classes)
    rows = [
        [
            str(label["value"]),
            label["name"],
            str(label["pixels"]),
            *([f"{label['millilitres']:.3f}"] if volume else []),
            *([f"{label['hectares']:.2f}"] if area else []),
            *([] if volume else [f"{100 * label['pixels'] / max(labelled, 1):.1f} %"]),
        ]
        for label in classes
    ]
    head = ["value", "class", "voxels" if volume else "pixels"]
    head += ["ml"] if volume else ["ha", "share"] if area else ["share"]
    if invalid_pixels and not volume:
        rows.append(["", "no data", str(invalid_pixels), *[""] * (len(head) - 3)])
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [
            cell.ljust(width) if column == 1 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    return "\n".join(lines)
