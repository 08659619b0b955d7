"""Cases in which not every class was looked for.

There a pixel that is labelled as the rest (background) may be of a class that nobody looked
for. What is known of it is the set of classes that it may have.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["labelled_as", "possible_classes"]


def possible_classes(
    labels: NDArray[np.integer], annotated: Sequence[int], num_classes: int, *, rest: int | None = 0
) -> NDArray[np.uint8]:
    """Return which classes each pixel may have, as the losses take it.

    Args:
        labels: Class indices ``(*space)``; negative ones are unknown.
        annotated: Class indices that were looked for.
        num_classes: Number of classes.
        rest: Class index of what belongs to no other class: its pixels may be of any class that
            was not looked for. None: there is no such class.

    Returns:
        ``(*space, num_classes)``, 1 for each class that is possible; all of them where the
        pixel is unknown, or is labelled as a class that was not looked for.
    """
    missing = [k for k in range(num_classes) if k not in annotated and k != rest]
    possible = labels[..., None] == np.arange(num_classes)
    if rest is not None:
        possible[..., missing] |= (labels == rest)[..., None]
    possible |= ((labels < 0) | np.isin(labels, missing))[..., None]
    return possible.astype(np.uint8)


def labelled_as(
    annotated: Sequence[int], num_classes: int, *, rest: int | None = 0
) -> NDArray[np.int64]:
    """Return which class index the labels of a case show for pixels of each class.

    A class that was looked for is shown as itself. The others are shown as the rest, where that
    is labelled, and else not at all.

    Args:
        annotated: Class indices that were looked for.
        num_classes: Number of classes.
        rest: Class index of what belongs to no other class, or None.

    Returns:
        ``(num_classes,)``, -1 for a class whose pixels have no label.
    """
    others = rest if rest is not None and rest in annotated else -1
    return np.array([k if k in annotated else others for k in range(num_classes)])
