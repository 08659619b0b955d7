"""The receptive-field formula, against NaN: it spreads exactly as far as anything does."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from segfocal.models import FocalUNet
from segfocal.models.receptive_field import receptive_field


def spreads(model, image, kept):
    """Return whether a NaN in the image reaches the kept pixels."""
    inputs = {"image": image, "valid": np.ones(image.shape[:-1], bool)}
    if model.global_context == "frozen":
        inputs["context"] = np.zeros((1, model.encoder.context_size), "float32")
    return bool(np.isnan(model.predict_on_batch(inputs)[(0, *kept)]).any())


@pytest.mark.parametrize(
    ("ndim", "encoder", "options"),
    [
        (2, {}, {}),
        (2, {"global_context": "frozen", "focal_levels": 1}, {"upsampling": "linear"}),
        (2, {"context": "parallel", "focal_window": (5, 3)}, {"upsampling": "transposed"}),
        (2, {"conv_stem": True, "use_postln": True}, {}),
        (2, {"patch_size": 2}, {}),
        (2, {"patch_size": 2, "conv_stem": True}, {"upsampling": "linear"}),
        (3, {"focal_window": (1, 1, 3), "focal_levels": 1, "depths": [1, 1, 1, 1]}, {}),
    ],
    ids=str,
)
def test_the_reach_is_exact(ndim, encoder, options):
    keras.utils.set_random_seed(0)
    encoder = {"global_context": "none", **encoder}
    model = FocalUNet(
        num_classes=2, in_channels=1, preset="nano", ndim=ndim, encoder=encoder, **options
    )
    reaches = receptive_field(model)
    stride = model.output_stride
    for axis in range(ndim):
        reach = reaches[axis]
        margin = stride * (-(-reach // stride) + 1)
        # Along the other axes one step of the network is enough.
        shape = [stride] * ndim
        shape[axis] = 2 * margin + stride
        kept = [slice(None)] * ndim
        kept[axis] = slice(margin, margin + stride)
        before = {distance: margin - distance for distance in (reach, reach + 1)}
        after = {distance: margin + stride - 1 + distance for distance in (reach, reach + 1)}
        met = []
        for distance in (reach, reach + 1):
            for place in (before[distance], after[distance]):
                image = np.random.default_rng(0).normal(size=(1, *shape, 1)).astype("float32")
                window = [slice(None)] * ndim
                window[axis] = place
                image[(0, *window)] = np.nan
                met.append(spreads(model, image, kept))
        # At the reach at least one side is met; the network is not symmetric to the pixel.
        assert any(met[:2]), f"axis {axis}: nothing depends on pixels {reach} away"
        assert not any(met[2:]), f"axis {axis}: something depends on pixels {reach + 1} away"


def test_the_focal_blocks_of_tiny_reach_552_pixels():
    (rows, cols) = receptive_field(
        FocalUNet(num_classes=2, in_channels=3, encoder={"global_context": "none"})
    )
    # And the decoder: 16 + 8 + 4 + 2 + 1 pixels, in whole positions of P5.
    assert rows == cols == 552 + 32


def test_contexts_of_the_whole_tile_have_no_reach():
    model = FocalUNet(num_classes=2, in_channels=1, preset="nano")
    with pytest.raises(ValueError, match="'tile' reaches over the whole tile"):
        receptive_field(model)
