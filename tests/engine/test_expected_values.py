"""Scans in other units than the training data are warned of, ordinary ones are not."""

from __future__ import annotations

import warnings

import nibabel as nib
import numpy as np
import pytest
import rasterio

import segfocal as sf
from segfocal.card import Card, Channel, LabelClass, Normalization
from segfocal.errors import SegfocalWarning

RNG = np.random.default_rng(0)
SCENE = RNG.normal(80, 25, (2, 300, 200)).clip(5, 255)


class Stub:
    output_stride, hash, engine, batch_matters = 1, "stub", "numpy", False

    def __init__(self, ndim=2, normalization=None):
        low, high = np.percentile(SCENE, (0.5, 99.5))
        count = 2 if ndim == 2 else 1
        known = {"mean": 80.0, "std": 25.0, "low": low, "high": high}
        self.ndim = ndim
        self.card = Card(
            ndim=ndim,
            channels=tuple(
                Channel(name=f"c{k}", normalization=normalization, **known) for k in range(count)
            ),
            classes=tuple(LabelClass(value=v, name=f"k{v}", color=(v, 0, 0)) for v in (1, 2)),
            tile=(64, 64) if ndim == 2 else (32, 32, 32),
            orientation="RAS" if ndim == 3 else None,
        )

    def __call__(self, values, valid):
        high = values[..., :1] > 0
        return np.concatenate([~high, high], -1).astype(np.float32)


def predicted(tmp_path, values, model=None):
    path = tmp_path / "scan.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=values.shape[2], height=values.shape[1], count=2,
        dtype=values.dtype, crs="EPSG:32119", transform=rasterio.Affine(2, 0, 0, 0, -2, 0),
        nodata=-1 if values.dtype.kind == "f" else None,
    ) as out:  # fmt: skip
        out.write(values)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        sf.predict(model or Stub(), path, tmp_path / "l.tif", overwrite=True)
    return [str(one.message) for one in told if one.category is SegfocalWarning]


@pytest.mark.parametrize(
    "values",
    [SCENE / 255, SCENE * 30, (SCENE * 30).astype(np.uint16), SCENE - 3000, SCENE / 1e4],
)
def test_another_unit_is_warned_of(tmp_path, values):
    (line,) = predicted(tmp_path, values.astype(np.float32 if values.dtype.kind == "f" else "u2"))
    assert "the values of band_1" in line
    assert "and of 1 more" in line


def ordinary():
    yield "the same", SCENE
    yield "darker", SCENE * 0.5
    yield "brighter", SCENE * 2
    yield "one dark lake", SCENE * 0 + RNG.normal(20, 2, SCENE.shape)
    yield "empty", SCENE * 0 + 7
    nodata = SCENE.copy()
    nodata[:, :250] = -1
    yield "mostly without data", nodata
    yield "without data", np.where(np.arange(200) < 199, -1, SCENE)
    outliers = SCENE.copy()
    outliers[:, ::3] = 30_000
    yield "many saturated", outliers


@pytest.mark.parametrize(("name", "values"), list(ordinary()), ids=[n for n, _ in ordinary()])
def test_ordinary_scenes_are_not_warned_of(tmp_path, name, values):
    assert predicted(tmp_path, values.astype(np.float32)) == []


def test_what_a_scan_is_normalized_with_itself_is_not_compared(tmp_path):
    model = Stub(normalization=Normalization(method="zscore"))
    assert predicted(tmp_path, (SCENE * 1000).astype(np.float32), model) == []


@pytest.mark.parametrize(("suffix", "warned"), [(".nii", 1), (".nii.gz", 0)])
def test_volumes_are_looked_at_where_that_is_cheap(tmp_path, suffix, warned):
    values = RNG.normal(8000, 2500, (40, 50, 60)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / f"v{suffix}")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        sf.predict(Stub(3), tmp_path / f"v{suffix}", tmp_path / "l.nii.gz")
    assert sum("are far from those in training" in str(one.message) for one in told) == warned
