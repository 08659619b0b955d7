"""Small real files and a card for the tests of segfocal.io."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from segfocal.card import Card, Channel, LabelClass

NORTH_UP = Affine(10, 0, 500000, 0, -10, 4000000)
SOUTH_UP = Affine(10, 0, 500000, 0, 10, 3990000)
ROTATED = Affine(8, 3, 500000, 3, -8, 4000000)
OBLIQUE = np.array(
    [[1.9, 0.1, 0.05, -20.0], [-0.08, 1.2, 0.3, 31.0], [-0.04, -0.25, 2.9, 7.5], [0, 0, 0, 1]]
)


@pytest.fixture
def grids() -> SimpleNamespace:
    """Georeferences by name; a fixture, as tests cannot import from this file."""
    return SimpleNamespace(
        north_up=NORTH_UP, south_up=SOUTH_UP, rotated=ROTATED, none=None, oblique=OBLIQUE
    )


@pytest.fixture
def make_card() -> Callable[..., Card]:
    """Return a function that makes a card for class values."""
    return _make_card


@pytest.fixture
def card() -> Card:
    """Return a card with a gap among its class values."""
    return _make_card(0, 1, 3)


def _make_card(*values: int) -> Card:
    names = ["water & <ice>", "forêt", 'town "A"', "rest"]
    return Card(
        channels=(Channel(name="a"),),
        classes=tuple(
            LabelClass(value=value, name=names[i], color=(10 * i, 20 * i, 30 * i))
            for i, value in enumerate(values)
        ),
    )


@pytest.fixture
def write_tif(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes ``(bands, rows, cols)`` to a GeoTIFF."""

    def write(array: np.ndarray, name: str = "scene.tif", **options: object) -> Path:
        settings: dict[str, object] = {
            "driver": "GTiff",
            "crs": "EPSG:32633",
            "transform": NORTH_UP,
            "tiled": True,
            "blockxsize": 32,
            "blockysize": 16,
        }
        settings.update(options)
        settings = {key: value for key, value in settings.items() if value is not None}
        path = tmp_path / name
        count, height, width = array.shape
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # asked for by some tests
            with rasterio.open(
                path, "w", count=count, height=height, width=width, dtype=array.dtype, **settings
            ) as target:
                target.write(array)
        return path

    return write


@pytest.fixture
def write_nii(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes an array in file order to a NIfTI file."""

    def write(array: np.ndarray, name: str = "volume.nii.gz", affine: np.ndarray = OBLIQUE) -> Path:
        path = tmp_path / name
        image = nib.Nifti1Image(array, affine)
        image.header.set_xyzt_units("mm", "sec")
        nib.save(image, path)
        return path

    return write
