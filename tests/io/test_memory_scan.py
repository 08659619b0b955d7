"""MemoryScan: what it refuses and how it marks validity."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from segfocal.errors import ScanError
from segfocal.io import MemoryScan
from segfocal.types import full_window


def test_spatial_validity_and_nan_are_combined() -> None:
    array = np.array([[[1.0, np.nan], [2.0, 3.0], [np.inf, 4.0]]])
    valid = np.array([[True, False, True]])
    scan = MemoryScan(array, valid=valid, channels=("red", "nir"))
    patch = scan.read(full_window(scan.shape))
    assert patch.valid.tolist() == [[[True, False], [False, False], [False, True]]]
    assert scan.channels == ("red", "nir")
    assert scan.channels_are_named


def test_validity_per_channel() -> None:
    valid = np.random.default_rng(0).random((3, 4, 5, 2)) < 0.5
    scan = MemoryScan(np.ones((3, 4, 5, 2), dtype=np.int16), valid=valid)
    window = (slice(1, 3), slice(0, 2), slice(2, 5))
    np.testing.assert_array_equal(scan.read(window, [1]).valid, valid[window][..., [1]])


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.zeros((4, 5)), {}, r"shape \(4, 5\); expected \(rows, cols, channels\)"),
        (np.zeros((4, 5, 1), dtype=complex), {}, "type complex128"),
        (np.zeros((4, 5, 0)), {}, "0 channels"),
        (np.zeros((4, 5, 1)), {"valid": np.ones((5, 4), bool)}, "expected bool of shape"),
        (np.zeros((4, 5, 1)), {"valid": np.ones((4, 5))}, "valid is float64"),
        (np.zeros((4, 5, 2)), {"channels": ["a", "a"]}, "expected 2 different names"),
        (np.zeros((4, 5, 2)), {"resolution": (1.0,)}, "expected 2 numbers"),
    ],
)
def test_what_does_not_fit_is_refused(array: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ScanError, match=message):
        MemoryScan(array, **options)


def test_importing_the_layer_loads_no_format_library() -> None:
    code = (
        "import sys, segfocal.io; "
        "sys.exit(bool({'rasterio', 'nibabel', 'keras', 'tensorflow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
