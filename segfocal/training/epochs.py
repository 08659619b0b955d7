"""Epochs: the parts of a run after each of which it is scored and gets a line in its log."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Epochs", "epochs_of", "patches_numbered_in"]

EPOCHS = 20
"""A run has about this many, and no more, whatever the number of steps."""

NUMBERED = 20


@dataclass(frozen=True)
class Epochs:
    """Epochs of equal length; the last is shorter where they do not divide the steps.

    Attributes:
        steps: Optimizer steps of the run.
        length: Steps of each epoch but the last.
    """

    steps: int
    length: int

    @property
    def count(self) -> int:
        """How many there are."""
        return -(-self.steps // self.length)

    def end_at(self, step: int) -> bool:
        """Return whether an epoch is complete after so many steps, or none is begun."""
        return step % self.length == 0 or step == self.steps


def epochs_of(steps: int) -> Epochs:
    """Return the epochs of a run of so many steps."""
    return Epochs(steps, -(-steps // EPOCHS))


def patches_numbered_in(steps: int) -> int:
    """Return the length of the parts in which the patches of a run are numbered.

    They divide the steps evenly and are not the epochs: what a step is trained on, and so the
    weights a seed gives, does not follow from how often a run is scored.
    """
    return steps // max(n for n in range(1, min(NUMBERED, steps) + 1) if steps % n == 0)
