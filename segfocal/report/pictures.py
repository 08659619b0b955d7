"""Pictures for people: scan, labels and prediction side by side, with a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from segfocal.card import LabelClass
from segfocal.io import PendingOutput
from segfocal.io.pending import writing
from segfocal.types import Window

__all__ = ["Panel", "blend_labels", "colorize", "draw_sheet", "mark_errors", "stretch"]

Picture = NDArray[np.uint8]

MARGIN = 16
TITLE = 30
CAPTION = 26
INK = (34, 34, 34)
PAPER = (255, 255, 255)
NO_DATA = (225, 225, 225)
WRONG = (200, 30, 60)
RIGHT = (205, 222, 205)
FRAME = 2
FRAME_COLOR = (255, 0, 255)


@dataclass(frozen=True)
class Panel:
    """One picture of a sheet, ``(rows, cols, 3)`` uint8, and what stands under it.

    ``frame`` outlines a window of the picture.
    """

    caption: str
    picture: Picture
    frame: Window | None = None


def stretch(values: NDArray[np.floating], valid: NDArray[np.bool_]) -> Picture:
    """Return a picture of one or three channels, stretched between their percentiles.

    Args:
        values: ``(rows, cols, 1 or 3)``.
        valid: ``(rows, cols)``; other pixels become light grey.
    """
    out = np.zeros((*valid.shape, values.shape[-1]))
    if valid.any():
        low, high = np.percentile(values[valid].astype(np.float64), [1, 99], axis=0)
        span = np.where(high > low, high - low, 1)
        out = np.clip((np.where(valid[..., None], values, low) - low) / span, 0, 1)
    picture = np.repeat(out, 3, -1) if values.shape[-1] == 1 else out
    picture = np.round(picture * 255).astype(np.uint8)
    picture[~valid] = NO_DATA
    return picture


def colorize(index: NDArray[np.integer], classes: Sequence[LabelClass]) -> Picture:
    """Return class indices in the classes' colours; negative ones light grey."""
    colors = np.array([*(label.color for label in classes), NO_DATA], np.uint8)
    return colors[np.where(index < 0, len(classes), index)]


def blend_labels(
    picture: Picture, index: NDArray[np.integer], classes: Sequence[LabelClass]
) -> Picture:
    """Return a picture with all classes but the first laid over it half transparent."""
    shown = (index > 0)[..., None]
    mixed = 0.5 * picture + 0.5 * colorize(index, classes)
    return np.where(shown, np.round(mixed).astype(np.uint8), picture)


def mark_errors(reference: NDArray[np.integer], found: NDArray[np.integer]) -> Picture:
    """Return where class indices differ (red), agree (pale green) or are not scored (grey)."""
    picture = np.empty((*reference.shape, 3), np.uint8)
    picture[:] = NO_DATA
    scored = (reference >= 0) & (found >= 0)
    picture[scored & (reference == found)] = RIGHT
    picture[scored & (reference != found)] = WRONG
    return picture


def draw_sheet(
    path: Path,
    title: str,
    rows: Sequence[Sequence[Panel]],
    classes: Sequence[LabelClass],
    *,
    panel_width: int = 420,
    overwrite: bool = False,
) -> None:
    """Write a PNG with rows of panels, a title and a legend of the classes.

    Pictures are scaled to a common width without smoothing, so that pixels stay pixels.

    Raises:
        OutputError: It cannot be written, or is there already.
    """
    scaled = [[_to_width(panel.picture, panel_width) for panel in row] for row in rows]
    heights = [max(picture.height for picture in row) for row in scaled]
    columns = max(len(row) for row in rows)
    width = columns * (panel_width + MARGIN) + MARGIN
    font, small = ImageFont.load_default(20), ImageFont.load_default(15)
    legend = _legend_rows(classes, small, width - 2 * MARGIN)
    height = (
        2 * MARGIN + TITLE + sum(heights) + len(rows) * (CAPTION + MARGIN) + len(legend) * CAPTION
    )
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, INK, font)
    top = MARGIN + TITLE
    for row, pictures, tallest in zip(rows, scaled, heights, strict=True):
        for column, (panel, picture) in enumerate(zip(row, pictures, strict=True)):
            left = MARGIN + column * (panel_width + MARGIN)
            sheet.paste(picture, (left, top))
            if panel.frame is not None:
                _outline(draw, panel, picture.width, (left, top))
            draw.text((left, top + picture.height + 4), panel.caption, INK, small)
        top += tallest + CAPTION + MARGIN
    for entries in legend:
        for left, label in entries:
            box = (MARGIN + left, top + 3, MARGIN + left + 16, top + 17)
            draw.rectangle(box, label.color, INK)
            draw.text((MARGIN + left + 22, top), label.name, INK, small)
        top += CAPTION
    with PendingOutput(path, overwrite=overwrite) as pending:
        with writing(path):
            sheet.save(pending.main, "PNG")
        pending.commit()


def _outline(draw: ImageDraw.ImageDraw, panel: Panel, width: int, corner: tuple[int, int]) -> None:
    """Draw a panel's frame around its window's pixels, not over them."""
    assert panel.frame is not None
    scale = width / panel.picture.shape[1]
    rows, cols = panel.frame
    box = (
        corner[0] + round(cols.start * scale) - FRAME,
        corner[1] + round(rows.start * scale) - FRAME,
        corner[0] + round(cols.stop * scale) + FRAME - 1,
        corner[1] + round(rows.stop * scale) + FRAME - 1,
    )
    draw.rectangle(box, outline=FRAME_COLOR, width=FRAME)


def _to_width(picture: Picture, width: int) -> Image.Image:
    rows, cols = picture.shape[:2]
    height = max(1, round(rows * width / cols))
    return Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST)


def _legend_rows(
    classes: Sequence[LabelClass], font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int
) -> list[list[tuple[int, LabelClass]]]:
    """Place legend entries from left to right, in as many rows as they need."""
    rows: list[list[tuple[int, LabelClass]]] = [[]]
    left = 0
    for label in classes:
        needed = 22 + int(font.getlength(label.name)) + 24
        if rows[-1] and left + needed > width:
            rows.append([])
            left = 0
        rows[-1].append((left, label))
        left += needed
    return rows
