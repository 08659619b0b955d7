"""Losses of segmentation networks.

All take logits ``(batch, *space, num_classes)``, compute in float32, leave out pixels of
``ignore_class`` and cost 0 where nothing is left. Labels come in one of three forms:

- class indices ``(batch, *space)``, for exclusive classes;
- possible classes ``(batch, *space, num_classes)``, 1 for each class that a pixel may have and
  0 for the others: what is known of a case in which some classes were not looked for, see
  :func:`segfocal.annotated.possible_classes`;
- with ``task="regions"``: ``(batch, *space, regions)`` of 1 (inside), 0 (outside) and
  ``ignore_class`` (unknown), for regions that may overlap.
"""

from segfocal.losses.boundary import Boundary
from segfocal.losses.combination import AtScale, WeightedSum
from segfocal.losses.dice import (
    DiceBinaryCrossEntropy,
    DiceCrossEntropy,
    GeneralisedDice,
    Tversky,
)
from segfocal.losses.focal import Focal
from segfocal.losses.lovasz import Lovasz
from segfocal.losses.tasks import tasks_of

__all__ = [
    "AtScale",
    "Boundary",
    "DiceBinaryCrossEntropy",
    "DiceCrossEntropy",
    "Focal",
    "GeneralisedDice",
    "Lovasz",
    "Tversky",
    "WeightedSum",
    "tasks_of",
]
