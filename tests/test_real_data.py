"""Prediction over the real scans beside the checkout; skipped where they are not."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import rasterio

import segfocal as sf


@pytest.mark.parametrize(
    ("name", "channels", "nodata"),
    [
        ("sat_sen1floods11_spain/Spain_7370579_S2Hand.tif", 13, lambda p: (p == 0).any(0)),
        ("sat_sen1floods11_spain/Spain_7370579_S1Hand.tif", 2, lambda p: np.isnan(p).any(0)),
        ("sat_lataseno_s2_clc2018/s2_lataseno_ex.tif", 9, None),
        ("sat_spacenet4_atlanta/sample_geotiff.tif", 1, lambda p: (p == 0).any(0)),
        ("sat_evo_deadwood_drone/R70C21.tif", 3, None),
    ],
)
def test_scenes_keep_their_grid_and_their_nodata(name, channels, nodata, shared_data, tmp_path):
    model = sf.FocalUNet(num_classes=3, in_channels=channels, preset="nano")
    sf.predict(model, shared_data / name, tmp_path / "labels.tif", tile=256)
    with rasterio.open(shared_data / name) as scan, rasterio.open(tmp_path / "labels.tif") as out:
        assert (out.crs, out.transform, out.shape) == (scan.crs, scan.transform, scan.shape)
        found, pixels = out.read(1), scan.read()
    expected = np.zeros(found.shape, bool) if nodata is None else nodata(pixels)
    np.testing.assert_array_equal(found == 255, expected)
    assert np.isin(found[~expected], range(3)).all()


@pytest.mark.parametrize(
    "name",
    [
        "med_msd_hippocampus/imagesTr/hippocampus_001.nii.gz",
        "med_colin27_aal/ch2.nii.gz",
        "med_tptbox_spine/sub-mri_label-6_T2w.nii.gz",
    ],
)
def test_volumes_keep_their_geometry(name, shared_data, tmp_path):
    itk = pytest.importorskip("SimpleITK")
    model = sf.FocalUNet(num_classes=2, in_channels=1, ndim=3, preset="nano")
    out = tmp_path / "labels.nii.gz"
    sf.predict(model, shared_data / name, out)
    scan, labels = nibabel.load(shared_data / name), nibabel.load(out)
    assert labels.shape == scan.shape[:3]
    np.testing.assert_array_equal(labels.affine, scan.affine)
    for form in ("sform", "qform"):
        assert labels.header[f"{form}_code"] == scan.header[f"{form}_code"]
    seen, expected = itk.ReadImage(str(out)), itk.ReadImage(str(shared_data / name))
    assert seen.GetOrigin() == expected.GetOrigin()
    assert seen.GetDirection() == expected.GetDirection()
    assert seen.GetSpacing() == expected.GetSpacing()
    assert set(np.unique(np.asarray(labels.dataobj))) <= {0, 1}
