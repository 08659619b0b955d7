"""Views of cases: a plane of a scan with labels and prediction laid over it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segfocal.card import IGNORE_INDEX, LabelClass, index_of_values
from segfocal.data.reading import BLOCK, RegionReader, blocks
from segfocal.io import open_scan, read_labels
from segfocal.report.pictures import NO_DATA, WRONG, Picture, stretch
from segfocal.types import Window, window_shape

__all__ = ["CaseView", "case_view", "view_html"]

Kind = TypeVar("Kind", bound=np.generic)

SIDE = 640
"""Pictures are at most this wide and high: of larger regions every nth pixel is shown."""

OPACITY = 60

PLANES = {"RL": "sagittal", "PA": "coronal", "IS": "axial"}


@dataclass(frozen=True)
class CaseView:
    """A plane of a case.

    Attributes:
        caption: What plane it is.
        picture: The scan, ``(rows, cols, 3)`` uint8.
        reference, found: Class indices ``(rows, cols)``, negative where unknown. Of regions that
            overlap that of the last which holds a pixel, as label maps show it, and their number
            where there is none.
        scored: Where the pixel is scored: both are known, and are of classes that were looked
            for in the case.
        aspect: Width of the picture divided by its height, as it should be shown.
    """

    caption: str
    picture: Picture
    reference: NDArray[np.int32]
    found: NDArray[np.int32]
    scored: NDArray[np.bool_]
    aspect: float


def case_view(reader: RegionReader, labels: Path) -> CaseView:
    """Return a view of a region: a scene's region, or the plane of a volume with most labels.

    Memory does not grow with the region.

    Args:
        reader: The region.
        labels: The case's predicted labels.
    """
    window, plane, caption = reader.window, None, ""
    if reader.spec.ndim == 3:
        plane, window, caption = _fullest_plane(reader)
    sides = window_shape(window)
    step = math.ceil(max(sides) / SIDE)
    # A plane is not thinned along its only pixel.
    shape = tuple(-(-side // step) for side in sides)
    used = _channels_shown(reader.spec.channels)
    values = np.zeros((*shape, len(used)), np.float32)
    valid = np.zeros(shape, np.bool_)
    reference = np.full(shape, IGNORE_INDEX, np.int32)
    found = np.full(shape, IGNORE_INDEX, np.int32)
    shown = _classes_shown(reader)
    class_values = [label.value for label in reader.spec.classes]
    if reader.table.overlapping:
        class_values.append(0)  # in no region
    with open_scan(labels, orientation=reader.spec.orientation or "RAS") as scan:
        for block in blocks(window, BLOCK[reader.spec.ndim]):
            place, take = _thinned(block, window, step)
            part, part_valid, part_reference = reader.read(block)
            predicted, labelled = read_labels(scan, block)
            index = index_of_values(predicted, class_values)
            index[~labelled] = IGNORE_INDEX
            values[place] = part[take][..., used]
            valid[place] = part_valid[take]
            reference[place], found[place] = shown[part_reference[take]], index[take]
    found[~valid] = IGNORE_INDEX
    size = reader.resolution or (1.0,) * reader.spec.ndim
    lengths = [side * unit for side, unit in zip(sides, size, strict=True)]
    if plane is not None:
        lengths = [length for axis, length in enumerate(lengths) if axis != plane][::-1]
        values, valid = _upright(values, plane), _upright(valid, plane)
        reference, found = _upright(reference, plane), _upright(found, plane)
    if step > 1:
        caption = f"{caption}, 1 of {step} pixels along each axis".removeprefix(", ")
    picture = stretch(np.nan_to_num(values), valid)
    # Beyond the classes: in no region, which is known wherever one was looked for; unknown.
    looked_for = np.array([*reader.annotated, True, False])
    scored = looked_for[reference] & looked_for[found]
    return CaseView(caption, picture, reference, found, scored, lengths[1] / lengths[0])


def _upright(array: NDArray[Kind], axis: int) -> NDArray[Kind]:
    """Drop the axis of length 1 and turn the plane so that the second axis points up."""
    return np.rot90(array.squeeze(axis), axes=(0, 1))


def _classes_shown(reader: RegionReader) -> NDArray[np.int32]:
    """Return the class index to show for each label index; the last is that of what is unknown."""
    members = reader.table.members
    numbers = np.where(members, np.arange(members.shape[1]), -1).max(1)
    numbers[numbers < 0] = members.shape[1]
    return np.append(numbers, IGNORE_INDEX).astype(np.int32)


def _channels_shown(names: Sequence[str]) -> list[int]:
    natural = [list(names).index(name) for name in ("red", "green", "blue") if name in names]
    return natural if len(natural) == 3 else [0]


def _thinned(block: Window, window: Window, step: int) -> tuple[Window, Window]:
    """Return where a block's every nth pixel goes, and which of its pixels these are."""
    place, take = [], []
    for side, whole in zip(block, window, strict=True):
        first = -(-(side.start - whole.start) // step)
        last = -(-(side.stop - whole.start) // step)
        place.append(slice(first, last))
        take.append(slice(first * step + whole.start - side.start, None, step))
    return tuple(place), tuple(take)


def _fullest_plane(reader: RegionReader) -> tuple[int, Window, str]:
    """Return axis, window and name of the axial plane that shows most of the classes."""
    orientation = reader.spec.orientation or "RAS"
    axis = next(i for i, letter in enumerate(orientation) if letter in "IS")
    start, stop = reader.window[axis].start, reader.window[axis].stop
    members = reader.table.members
    counts = np.zeros((len(members), stop - start), np.int64)
    others = tuple(i for i in range(3) if i != axis)
    for block in blocks(reader.window, BLOCK[3]):
        labels = reader.read(block)[2]
        part = slice(block[axis].start - start, block[axis].stop - start)
        for k in range(len(counts)):
            counts[k, part] += (labels == k).sum(others)
    # Of the classes' counts the geometric mean: a plane that shows all of them goes first.
    of_class = members.T @ counts
    if not reader.table.overlapping:
        of_class = of_class[1:]
    best = int(np.argmax(np.log1p(of_class).sum(0))) + start
    window = list(reader.window)
    window[axis] = slice(best, best + 1)
    return axis, tuple(window), f"axial, slice {best}"


def view_html(
    view: CaseView,
    classes: Sequence[LabelClass],
    *,
    title: str,
    name: str,
    background: int | None,
) -> str:
    """Return a view with the choice of what is laid over the scan, and how strongly.

    Args:
        view: The view.
        classes: The classes.
        title: Heading.
        name: Unique on the page.
        background: Class index that is not drawn, or None.
    """
    layers = {
        "reference": _label_layer(view.reference, classes, background),
        "prediction": _label_layer(view.found, classes, background),
        "errors": _error_layer(view),
    }
    images = "".join(
        f'<img data-layer="{layer}" alt="{layer}" src="{_data_uri(image)}" hidden>'
        for layer, image in layers.items()
    )
    choices = "".join(
        f'<label><input type="radio" name="{name}" value="{layer}"'
        f"{' checked' if layer == 'prediction' else ''}>{layer}</label>"
        for layer in layers
    )
    # Tall pictures are made narrower, or they would not fit on the screen.
    width = min(100.0, 100.0 * view.aspect * 1.25)
    caption = f"<figcaption>{escape(view.caption)}</figcaption>" if view.caption else ""
    return (
        f'<figure class="view" id="{name}"><h3>{escape(title)}</h3>'
        f'<div class="stack" style="aspect-ratio:{view.aspect:.4f};width:{width:.1f}%">'
        f'<img alt="scan" src="{_data_uri(Image.fromarray(view.picture))}">{images}</div>'
        f'<div class="controls">{choices}<label class="opacity">opacity '
        f'<input type="range" min="0" max="100" value="{OPACITY}" aria-label="opacity">'
        f"<output>{OPACITY} %</output></label></div>{caption}</figure>"
    )


def _label_layer(
    index: NDArray[np.int32], classes: Sequence[LabelClass], background: int | None
) -> Image.Image:
    colors = np.array([(*label.color, 255) for label in classes] + [(0, 0, 0, 0)], np.uint8)
    if background is not None:
        colors[background, 3] = 0
    return Image.fromarray(colors[np.where(index < 0, len(classes), index)], "RGBA")


def _error_layer(view: CaseView) -> Image.Image:
    layer = np.zeros((*view.scored.shape, 4), np.uint8)
    layer[~view.scored] = (*NO_DATA, 255)
    layer[view.scored & (view.reference != view.found)] = (*WRONG, 255)
    return Image.fromarray(layer, "RGBA")


def _data_uri(image: Image.Image) -> str:
    out = io.BytesIO()
    if image.mode == "RGB":
        kind = "jpeg"
        image.save(out, "JPEG", quality=88)
    else:
        kind = "png"
        image.save(out, "PNG", optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
