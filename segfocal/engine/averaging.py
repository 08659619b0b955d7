"""Averages of predictions: over several models, and over flipped and rotated tiles."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from segfocal.card import Card
from segfocal.engine.identity import model_identity
from segfocal.engine.predictors import Predictor
from segfocal.errors import GeometryError, ModelError

__all__ = ["TTA", "AugmentedPredictor", "EnsemblePredictor"]

TTA = Literal["flips", "rotations"]


class EnsemblePredictor:
    """Several models as one: the mean of their probabilities.

    Args:
        members: Predictors with cards that agree on channels and classes. Tile and statistics
            for comparison are those of the first. It has no temperature.

    Raises:
        ModelError: There is none, one is a plain function or has frozen context, or they do
            not agree.
    """

    def __init__(self, members: Sequence[Predictor]) -> None:
        if not members:
            raise ModelError("an ensemble of no models; expected at least one")
        cards = [_member_card(member, place) for place, member in enumerate(members, start=1)]
        for place, card in enumerate(cards[1:], start=2):
            _check_agreement(cards[0], card, place)
        self._members, self._cards = tuple(members), cards
        self.tile_by_tile = all(getattr(member, "tile_by_tile", False) for member in members)
        self.any_thread = all(getattr(member, "any_thread", False) for member in members)
        # A temperature was found for its own model; their mean is less sure than each of them.
        self.card: Card = cards[0].model_copy(update={"temperature": None})
        self.ndim: int = self.card.ndim
        self.output_stride = math.lcm(*(member.output_stride for member in members))
        # Each model has means of its own for what is not valid; they are put in per member.
        self.fill = np.full(len(self.card.channels), np.nan, np.float32)
        self._means = [
            np.array([c.mean for c in card.network_channels], np.float32) for card in cards
        ]

    @property
    def hash(self) -> str | None:
        """sha256 of the members' hashes; None when one has none."""
        hashes = [member.hash for member in self._members]
        if None in hashes:
            return None
        return hashlib.sha256(" ".join(str(one) for one in hashes).encode()).hexdigest()

    @property
    def engine(self) -> str:
        """The members' engines, each once."""
        return " + ".join(dict.fromkeys(member.engine for member in self._members))

    @property
    def batch_matters(self) -> bool:
        """Whether a member's results may differ in the last bits with the batch size."""
        return any(model_identity(member).batch_matters for member in self._members)

    def __call__(
        self, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        lacking = np.isnan(values)
        total: NDArray[np.float32] | None = None
        for member, means in zip(self._members, self._means, strict=True):
            found = member(np.where(lacking, means, values), valid)
            total = found if total is None else total + found
        assert total is not None
        return total / np.float32(len(self._members))


class AugmentedPredictor:
    """Test-time augmentation: the mean over flipped, and rotated, tiles.

    Args:
        predictor: The model.
        tta: ``"flips"``: along every combination of axes, 4 calls for scenes and 8 for
            volumes. ``"rotations"``: each of them also with the first two axes swapped, which
            gives all rotations by 90 degrees in their plane; twice the calls.
        tile: Sides of the tiles.

    Raises:
        GeometryError: ``tta`` is unknown, or rotations are asked for and the tile is not as
            wide as it is high.
    """

    def __init__(self, predictor: Predictor, tta: TTA, tile: Sequence[int]) -> None:
        if tta not in get_args(TTA):
            raise GeometryError(f"tta {tta!r}; expected {' or '.join(get_args(TTA))}")
        if tta == "rotations" and tile[0] != tile[1]:
            raise GeometryError(
                f"tta rotations needs tiles as wide as high, found {tile[0]} x {tile[1]}: choose "
                "such a tile, or flips"
            )
        self._predictor = predictor
        self.card, self.ndim = predictor.card, predictor.ndim
        self.output_stride = predictor.output_stride
        self.tile_by_tile = getattr(predictor, "tile_by_tile", False)
        self.any_thread = getattr(predictor, "any_thread", False)
        self.tta = tta
        self.global_context: str | None = getattr(predictor, "global_context", None)
        # Of batches of tiles, whose first axis is not one of space.
        axes = range(1, len(tile) + 1)
        self._flips = [
            tuple(axis for axis, flip in zip(axes, chosen, strict=True) if flip)
            for chosen in itertools.product((False, True), repeat=len(tile))
        ]
        self._swaps = (False, True) if tta == "rotations" else (False,)

    @property
    def hash(self) -> str | None:
        """The model's own; ``tta`` is a parameter of the run."""
        return self._predictor.hash

    @property
    def engine(self) -> str:
        """The model's own."""
        return self._predictor.engine

    @property
    def batch_matters(self) -> bool:
        """The model's own."""
        return model_identity(self._predictor).batch_matters

    def __call__(
        self, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        total: NDArray[np.float32] | None = None
        for swap, flips in itertools.product(self._swaps, self._flips):
            turned = [np.flip(_swapped(array, swap), flips) for array in (values, valid)]
            found = self._predictor(*(np.ascontiguousarray(array) for array in turned))
            back = _swapped(np.flip(found, flips), swap)
            total = back.copy() if total is None else total + back
        assert total is not None
        return total / np.float32(len(self._swaps) * len(self._flips))


def _swapped(array: NDArray, swap: bool) -> NDArray:
    return array.swapaxes(1, 2) if swap else array


def _member_card(member: Predictor, place: int) -> Card:
    if member.card is None:
        raise ModelError(
            f"model {place} of the ensemble is a plain function; expected segfocal models"
        )
    if getattr(member, "global_context", None) == "frozen":
        raise ModelError(
            f"model {place} of the ensemble has a frozen context, which is measured for one model "
            "at a time; choose another global context"
        )
    return member.card


def _check_agreement(first: Card, card: Card, place: int) -> None:
    for what, mine, its in (
        ("axes", first.ndim, card.ndim),
        ("channels", [c.name for c in first.channels], [c.name for c in card.channels]),
        ("classes", _classes(first), _classes(card)),
        ("slices", first.slices, card.slices),
        ("normalization", first.normalizations, card.normalizations),
        ("task", first.task, card.task),
        ("valid_when", first.valid_when, card.valid_when),
        ("orientation", first.orientation, card.orientation),
    ):
        if mine != its:
            raise ModelError(
                f"model {place} of the ensemble differs in {what}: {its}, the first has {mine}; "
                "expected models of the same channels and classes"
            )


def _classes(card: Card) -> list[str]:
    return [f"{label.value} {label.name}" for label in card.classes]
