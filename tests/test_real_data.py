"""Prediction over the real scans beside the checkout; skipped where they are not."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import rasterio

import segfocal as sf
from segfocal.errors import SegfocalWarning


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


class Thirds:
    """Three classes by the share of each scan's own range: a model that costs nothing."""

    ndim, output_stride, hash, engine, batch_matters = 3, 1, "thirds", "numpy", False

    def __init__(self, channels=1):
        self.card = sf.Card(
            ndim=3,
            channels=tuple({"name": f"c{i}"} for i in range(channels)),
            classes=tuple(
                {"value": v, "name": name, "color": (v, 9, 0)}
                for v, name in ((0, "low"), (1, "middle"), (4, "high"))
            ),
            tile=(96, 96, 96),
            orientation="RAS",
            normalization={"method": "percentile", "region": "valid"},
        )

    def __call__(self, values, valid):
        near = 1 / (0.01 + np.abs(values.mean(-1, keepdims=True) - np.float32([0.1, 0.5, 0.9])))
        return near / near.sum(-1, keepdims=True)


def check_geometry(scan_path, labels_path):
    itk = pytest.importorskip("SimpleITK")
    scan, labels = nibabel.load(scan_path), nibabel.load(labels_path)
    np.testing.assert_array_equal(labels.affine, scan.affine)
    for field in ("qform_code", "sform_code", "xyzt_units"):
        assert labels.header[field] == scan.header[field]
    seen, expected = itk.ReadImage(str(labels_path)), itk.ReadImage(str(scan_path))
    for what in ("GetSize", "GetOrigin", "GetDirection", "GetSpacing"):
        assert getattr(seen, what)() == getattr(expected, what)()


@pytest.mark.parametrize("patient", ["STS_008", "STS_019"])
def test_modalities_of_a_patient_lie_on_the_grid_of_the_first(shared_data, tmp_path, patient):
    folder = shared_data / "med_sts_sarcoma" / patient
    paths = [folder / f"{name}_image.nii.gz" for name in ("MR_T1", "CT", "PET")]
    with pytest.warns(SegfocalWarning, match="is resampled to the grid of") as told:
        sf.predict(Thirds(3), paths, tmp_path / "labels.nii.gz", uncertainty=True)
    assert len(told) == 2
    check_geometry(paths[0], tmp_path / "labels.nii.gz")
    for path in paths:
        sf.predict(Thirds(), path, tmp_path / path.name, fill_holes="all", min_volume=100)
        check_geometry(path, tmp_path / path.name)


def test_small_and_whole_heads_keep_their_geometry(shared_data, tmp_path):
    hippocampi = sorted((shared_data / "med_msd_hippocampus" / "imagesTr").glob("*.nii.gz"))[:10]
    others = [
        shared_data / "med_colin27_aal" / "ch2.nii.gz",
        *(shared_data / "med_tptbox_spine").glob("*_ct.nii.gz"),
        *(shared_data / "med_tptbox_spine").glob("*_T2w.nii.gz"),
    ]
    assert (len(hippocampi), len(others)) == (10, 3)
    for path in hippocampi + others:
        sf.predict(Thirds(), path, tmp_path / path.name)
        check_geometry(path, tmp_path / path.name)
        values = np.asarray(nibabel.load(path).dataobj, np.float64)
        low, high = np.percentile(values, [0.5, 99.5])
        share = np.clip((values - low) / (high - low), 0, 1)
        expected = np.array([0, 1, 4])[np.digitize(share, [0.3, 0.7])]
        found = np.asarray(nibabel.load(tmp_path / path.name).dataobj)
        sure = (np.abs(share - 0.3) > 1e-3) & (np.abs(share - 0.7) > 1e-3)
        np.testing.assert_array_equal(found[sure], expected[sure])
