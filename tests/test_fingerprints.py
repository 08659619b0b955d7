"""What a finished output is recognised by: all that its bytes follow from."""

from __future__ import annotations

import zlib

import nibabel as nib
import numpy as np
import pytest
import rasterio
import scipy

import segfocal as sf
import segfocal.engine.fingerprint
from segfocal.card import Card, Channel, LabelClass
from segfocal.errors import OutputExistsError


class Stub:
    """Two classes by the sign of a wave of the first channel."""

    output_stride, hash, engine, batch_matters = 1, "stub", "numpy", False

    def __init__(self, ndim, resolution=None):
        self.ndim = ndim
        self.card = Card(
            ndim=ndim,
            channels=(Channel(name="a"),),
            classes=tuple(LabelClass(value=v, name=f"c{v}", color=(v, 0, 0)) for v in (3, 4)),
            tile=(16,) * ndim,
            resolution=resolution,
            orientation="RAS" if ndim == 3 else None,
        )

    def __call__(self, values, valid):
        wave = 0.5 + 0.5 * np.sin(values[..., :1] / 9)
        return np.concatenate([wave, 1 - wave], -1)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    rng = np.random.default_rng(0)
    with rasterio.open(
        folder / "scene.tif", "w", driver="GTiff", width=30, height=40, count=1, dtype="uint8",
        crs="EPSG:32119", transform=rasterio.Affine(2, 0, 0, 0, -2, 0),
    ) as out:  # fmt: skip
        out.write(rng.integers(0, 99, (1, 40, 30), np.uint8))
    voxels = rng.integers(0, 99, (12, 13, 14)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / "volume.nii")
    return {2: folder / "scene.tif", 3: folder / "volume.nii"}


def refused(model, scan, out, **options):
    """Return whether what is there is not taken for the output of these options."""
    try:
        return not sf.predict(model, scan, out, **options).unchanged
    except OutputExistsError:
        return True


def test_how_a_scan_is_resampled_counts(scans, tmp_path):
    model, out = Stub(2, (3.0, 3.0)), tmp_path / "labels.tif"
    ways = [
        {"resample": "never"},
        {"resample": "always"},
        {"resample": "always", "interpolation": 3},
    ]
    shown = []
    for way in ways:
        sf.predict(model, scans[2], out, overwrite=True, **way)
        with rasterio.open(out) as labels:
            shown.append(labels.read())
        for other in ways:
            assert refused(model, scans[2], out, **other) is (other is not way), (way, other)
    assert (shown[0] != shown[1]).any()
    assert (shown[1] != shown[2]).any()


@pytest.mark.parametrize(
    ("ndim", "owner", "name"),
    [
        (2, sf.engine.fingerprint, "__version__"),
        (2, np, "__version__"),
        (2, rasterio, "__version__"),
        (2, rasterio, "__gdal_version__"),
        (2, scipy, "__version__"),
        (3, np, "__version__"),
        (3, nib, "__version__"),
        (3, zlib, "ZLIB_RUNTIME_VERSION"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_the_version_of_every_library_that_rounds_or_writes_counts(
    scans, tmp_path, monkeypatch, ndim, owner, name
):
    model = Stub(ndim, (3.0,) * ndim)
    out = tmp_path / ("labels.tif" if ndim == 2 else "labels.nii.gz")
    options = {"resample": "always"}
    sf.predict(model, scans[ndim], out, **options)
    assert not refused(model, scans[ndim], out, **options)
    monkeypatch.setattr(owner, name, "0.0.1")
    assert refused(model, scans[ndim], out, **options)
    monkeypatch.undo()
    assert not refused(model, scans[ndim], out, **options)
