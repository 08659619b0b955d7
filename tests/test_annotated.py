"""What is known of a pixel when not every class was looked for."""

from __future__ import annotations

import numpy as np

from segfocal.annotated import possible_classes


def test_the_rest_may_be_what_nobody_looked_for():
    labels = np.array([[0, 1, 2, 3, -1]])
    assert possible_classes(labels, [0, 1, 3], 4).tolist() == [
        # 2 was not looked for: where it is labelled all the same, nothing is known.
        [[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1]]
    ]


def test_without_a_rest_only_the_unannotated_pixels_are_unknown():
    labels = np.array([0, 1, 2, -1])
    assert possible_classes(labels, [0, 1], 3, rest=None).tolist() == [
        [1, 0, 0], [0, 1, 0], [1, 1, 1], [1, 1, 1],
    ]  # fmt: skip


def test_with_every_class_looked_for_a_pixel_has_its_own():
    labels = np.array([2, 0, 1])
    assert possible_classes(labels, [0, 1, 2], 3).tolist() == np.eye(3)[labels].tolist()
    assert possible_classes(labels, [1, 2], 3).tolist() == np.eye(3)[labels].tolist()
