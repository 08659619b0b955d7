"""The model card: everything besides weights that prediction needs to know.

The card travels inside the model's config as plain JSON, so that ``zipfile`` and ``json``
alone can read it from a ``.keras`` file. It says which channels the model expects and what
they were scaled with, which class index stands for which value in the user's label files,
and the tile the model was trained for.

*Class index* is a position in the network's output (0 .. num_classes - 1); *class value* is
the integer in the user's label files. The card maps one to the other; files hold values.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from segfocal.errors import ModelError

__all__ = [
    "CARD_FORMAT",
    "IGNORE_INDEX",
    "Card",
    "Channel",
    "LabelClass",
    "Normalization",
    "Orientation",
    "index_of_values",
]

CARD_FORMAT = 1
"""Version of the card's layout; a reader refuses a newer one."""

IGNORE_INDEX = -1
"""Class index of pixels that take no part in losses and scores."""

MAX_CLASS_VALUE = 65535

Byte = Annotated[int, Field(ge=0, le=255)]
Color = tuple[Byte, Byte, Byte]


def _checked_orientation(codes: str) -> str:
    axes = [next((axis for axis in ("RL", "AP", "SI") if code in axis), "") for code in codes]
    if sorted(axes) != ["AP", "RL", "SI"]:
        raise ValueError("expected three letters, one each of R/L, A/P and S/I, such as RAS")
    return codes


Orientation = Annotated[str, AfterValidator(_checked_orientation)]
"""Axis codes of a volume, one letter per array axis, as nibabel writes them."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelClass(_Strict):
    """One class: its value in label files, its name and its colour (RGB, 0 to 255)."""

    value: Annotated[int, Field(ge=0, le=MAX_CLASS_VALUE)]
    name: Annotated[str, Field(min_length=1)]
    color: Color


class Normalization(_Strict):
    """How a channel is normalized with numbers of the scan itself, before the network.

    Attributes:
        method: ``"zscore"``: less the mean, divided by the standard deviation.
            ``"percentile"``: from 0 at the percentile ``low`` to 1 at ``high``, clipped.
            ``"window"``: from 0 at the value ``low`` to 1 at ``high``, clipped, such as a window
            of Hounsfield units; nothing is measured.
        low: Percentile (0.5 when left out) or value.
        high: Percentile (99.5 when left out) or value.
        region: What is measured: ``"nonzero"`` values, as the background of MR scans is 0 (and
            stays 0 with ``"zscore"``), or all ``"valid"`` ones.
    """

    method: Literal["zscore", "percentile", "window"]
    low: float | None = None
    high: float | None = None
    region: Literal["nonzero", "valid"] = "nonzero"

    @model_validator(mode="after")
    def _consistent(self) -> Normalization:
        low, high = self.bounds
        if self.method == "zscore" and (self.low, self.high) != (None, None):
            raise ValueError("a zscore has no low and high")
        if self.method == "window" and None in (self.low, self.high):
            raise ValueError("a window needs low and high")
        if self.method == "percentile" and not 0 <= low <= high <= 100:
            raise ValueError(f"percentiles {low} and {high}; expected 0 to 100")
        if not low < high:
            raise ValueError(f"low {low} is not below high {high}")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """``low`` and ``high``, or what stands for them."""
        low, high = self.low, self.high
        return 0.5 if low is None else low, 99.5 if high is None else high


class Channel(_Strict):
    """One input channel: its name and the numbers it is standardised with.

    ``mean`` and ``std`` are in the scan's units, measured on valid training pixels;
    ``low`` and ``high`` are the 0.5 and 99.5 percentiles seen in training, for comparison
    with a scan to predict. With a ``normalization`` by each scan's own numbers, they are all of
    normalized values.
    """

    name: Annotated[str, Field(min_length=1)]
    mean: float = 0.0
    std: Annotated[float, Field(gt=0)] = 1.0
    low: float | None = None
    high: float | None = None
    normalization: Normalization | None = None

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written = handler(self)
        if self.normalization is None:
            written.pop("normalization", None)
        return written


class Card(_Strict):
    """Contract between a trained model and the scans it is run on.

    Attributes:
        format: Version of the card's layout.
        segfocal: Version of segfocal that wrote it.
        ndim: 2 for scenes, 3 for volumes.
        channels: Input channels in the network's order.
        named_channels: True when the names mean something and are matched against the
            scan's own; False when channels are matched by position.
        valid_when: ``"all"``: a pixel counts when all its channels are valid; ``"any"``:
            when at least one is.
        classes: One entry per class index.
        task: ``"classes"``: every pixel has one class; ``"regions"``: regions may overlap, each
            with a probability of its own. A label map shows, of the regions that hold a pixel,
            the last in the order of ``classes``, and 0 where there is none.
        tile: Side lengths of tiles in pixels that suit the model, or None: those of training
            patches, rounded up to what a network with downsampling can overlap.
        patch: Side lengths of training patches in pixels where they differ from ``tile``.
        normalization: How channels are normalized with each scan's own numbers, where they do not
            say it themselves. None: as they are.
        slices: Of a model of two axes that is run over volumes slice by slice: how many
            neighbouring slices make up its channels (2.5-D), an odd number. The network then has
            the channels of the first slice, of the next, and so on.
        resolution: Pixel size of the training data along each axis (CRS units or mm).
        orientation: Axis codes of volumes (nibabel's), e.g. ``"RAS"``; None for scenes.
        temperature: What the logits are divided by before they become the probabilities that are
            given out; None: nothing. Labels do not depend on it. Networks, exported ones too,
            give probabilities without it: it is applied to what tiles were blended to.
    """

    format: Literal[1] = 1
    segfocal: str = ""
    ndim: Literal[2, 3] = 2
    channels: tuple[Channel, ...] = Field(min_length=1)
    named_channels: bool = False
    valid_when: Literal["all", "any"] = "all"
    classes: tuple[LabelClass, ...] = Field(min_length=1)
    task: Literal["classes", "regions"] = "classes"
    tile: tuple[Annotated[int, Field(gt=0)], ...] | None = None
    patch: tuple[Annotated[int, Field(gt=0)], ...] | None = None
    slices: Annotated[int, Field(gt=0)] = 1
    normalization: Normalization | None = None
    resolution: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    orientation: Orientation | None = None
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Card:
        named: tuple[tuple[str, list[Any]], ...] = (
            ("channel name", [channel.name for channel in self.channels]),
            ("class value", [label.value for label in self.classes]),
            ("class name", [label.name for label in self.classes]),
        )
        for what, items in named:
            twice = [item for item in items if items.count(item) > 1]
            if twice:
                raise ValueError(f"{what} {twice[0]!r} stands twice; expected each once")
        values = [label.value for label in self.classes]
        if self.task == "regions" and 0 in values:
            raise ValueError("a region has value 0, which stands for no region; expected 1 or more")
        if self.task == "classes" and len(values) < 2:
            raise ValueError(f"{len(values)} class; expected at least 2, background included")
        if self.temperature is not None and self.task == "regions":
            raise ValueError("a temperature is for exclusive classes; expected none for regions")
        if self.slices % 2 == 0 or (self.slices > 1 and self.ndim != 2):
            raise ValueError(
                f"slices {self.slices} of {self.ndim} axes; expected an odd number, and more than "
                "1 for a model of two axes only"
            )
        for what, sides in (
            ("tile", self.tile),
            ("patch", self.patch),
            ("resolution", self.resolution),
        ):
            if sides is not None and len(sides) != self.ndim:
                raise ValueError(f"{what} {sides} has {len(sides)} numbers; expected {self.ndim}")
        return self

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what says nothing: readers of format 1 from before it refuse what is new."""
        written = handler(self)
        if self.task == "classes":
            written.pop("task", None)
        if self.patch is None:
            written.pop("patch", None)
        if self.normalization is None:
            written.pop("normalization", None)
        if self.slices == 1:
            written.pop("slices", None)
        if self.temperature is None:
            written.pop("temperature", None)
        return written

    @property
    def num_classes(self) -> int:
        """Number of classes, background included; or of regions."""
        return len(self.classes)

    @property
    def normalizations(self) -> tuple[Normalization | None, ...]:
        """How each channel is normalized with a scan's own numbers, if at all."""
        return tuple(channel.normalization or self.normalization for channel in self.channels)

    @property
    def network_channels(self) -> tuple[Channel, ...]:
        """The network's input channels: those of each slice, one slice after the other."""
        return self.channels * self.slices

    @property
    def class_values(self) -> NDArray[np.int64]:
        """Class values in the order of class indices, shape ``(num_classes,)``."""
        return np.array([label.value for label in self.classes], dtype=np.int64)

    def label_values(self, probabilities: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return the class value that a label map shows at each pixel.

        Args:
            probabilities: ``(*sides, num_classes)``. A region holds a pixel when its
                probability is above one half.

        Returns:
            ``(*sides,)``; see ``task`` for regions.
        """
        if self.task == "classes":
            return self.class_values[probabilities.argmax(-1)]
        labels = np.zeros(probabilities.shape[:-1], np.int64)
        for index, value in enumerate(self.class_values):
            labels[probabilities[..., index] > 0.5] = value
        return labels

    @classmethod
    def generic(
        cls,
        *,
        ndim: int,
        in_channels: int,
        num_classes: int,
        task: Literal["classes", "regions"] = "classes",
    ) -> Card:
        """Return the card of a model nobody has described yet.

        Channels are matched by position, class values equal class indices (for regions, which
        have no background: indices from 1 on) and colours are spread evenly over the hue circle.
        """
        first = 1 if task == "regions" else 0
        return cls(
            ndim=ndim,  # type: ignore[arg-type]
            channels=tuple(Channel(name=f"channel_{i + 1}") for i in range(in_channels)),
            classes=tuple(
                LabelClass(value=i, name=f"class_{i}", color=spread_color(i, num_classes + first))
                for i in range(first, num_classes + first)
            ),
            task=task,
            orientation="RAS" if ndim == 3 else None,
        )

    @classmethod
    def from_json(cls, value: object, source: str = "card") -> Card:
        """Validate a parsed JSON value.

        Raises:
            ModelError: The value is not a card, or one of a newer format.
        """
        if isinstance(value, dict) and value.get("format", CARD_FORMAT) != CARD_FORMAT:
            raise ModelError(
                f"{source}: card format {value.get('format')}; this segfocal reads format "
                f"{CARD_FORMAT}: update segfocal to use this model"
            )
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "card"
            raise ModelError(f"{source}: card is unusable at {where}: {first['msg']}") from error


def spread_color(index: int, count: int) -> Color:
    """Return a colour for class ``index`` of ``count``: black first, then even hues."""
    if index == 0:
        return (0, 0, 0)
    rgb = colorsys.hsv_to_rgb((index - 1) / max(count - 1, 1), 0.75, 0.95)
    return (round(rgb[0] * 255), round(rgb[1] * 255), round(rgb[2] * 255))


def index_of_values(labels: NDArray[np.generic], values: Sequence[int]) -> NDArray[np.int32]:
    """Map class values to class indices; every other value becomes ``IGNORE_INDEX``.

    Args:
        labels: Integer (or integral float) array of class values, any shape.
        values: Class values in the order of class indices.
    """
    known = np.asarray(values)
    order = np.argsort(known)
    place = np.clip(np.searchsorted(known[order], labels), 0, len(known) - 1)
    found = known[order][place] == labels
    return np.where(found, order[place], IGNORE_INDEX).astype(np.int32)
