"""The label map on disk against an array."""

from __future__ import annotations

import numpy as np
import pytest

from segfocal.engine.label_map import LabelMap


@pytest.mark.parametrize("shape", [(13, 9), (7, 1), (5, 6, 8)])
@pytest.mark.parametrize("nodata", [3, 300])
def test_windows_read_what_windows_wrote(tmp_path, shape, nodata):
    rng = np.random.default_rng(0)
    for slow_axis in range(len(shape)):
        expected = np.zeros(shape, np.uint16)
        with LabelMap(tmp_path / "map", shape, nodata, slow_axis=slow_axis) as labels:
            assert labels.dtype == (np.uint8 if nodata == 3 else np.uint16)
            for _ in range(40):
                ends = [np.sort(rng.integers(0, side + 1, 2)) for side in shape]
                window = tuple(slice(int(a), int(b)) for a, b in ends)
                part = rng.integers(0, nodata + 1, expected[window].shape)
                expected[window] = part
                labels.write(window, part)
                ends = [np.sort(rng.integers(0, side + 1, 2)) for side in shape]
                window = tuple(slice(int(a), int(b)) for a, b in ends)
                np.testing.assert_array_equal(labels.read(window), expected[window])
            strips = list(labels.strips(pixels=20))
            seen = np.zeros(shape, int)
            for window in strips:
                np.testing.assert_array_equal(labels.read(window), expected[window])
                seen[window] += 1
            assert (seen == 1).all()
            if labels.shape[slow_axis] > 1 and np.prod(shape) > 20:
                assert len(strips) > 1
        assert not (tmp_path / "map").exists()
