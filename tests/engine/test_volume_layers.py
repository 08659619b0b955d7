"""Probabilities and uncertainty of volumes: 4-D NIfTI on the grid of the input."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

import segfocal as sf
from segfocal.card import Card, Channel, LabelClass

CLASSES = 3


class Stub:
    """Probabilities that depend on the voxel alone."""

    ndim, output_stride, hash, engine, batch_matters = 3, 1, "stub", "numpy", False

    def __init__(self, task="classes"):
        self.card = Card(
            ndim=3,
            channels=(Channel(name="a"),),
            classes=tuple(
                LabelClass(value=v + 1, name=f"name {v}", color=(v, 0, 0)) for v in range(CLASSES)
            ),
            task=task,
            tile=(5, 6, 7),
            orientation="RAS",
        )

    def __call__(self, values, valid):
        score = np.exp(3 * np.sin(values / 9 + np.arange(CLASSES))).astype(np.float32)
        return (
            score / (1 + score) if self.card.task == "regions" else score / score.sum(-1)[..., None]
        )


@pytest.fixture(params=["RAS", "PIL"])
def volume(request, tmp_path):
    """A volume with a hole of NaN, a time unit, and a slope."""
    voxels = np.random.default_rng(0).normal(30, 20, (9, 11, 13)).astype(np.float32)
    voxels[2:4, 5, 6:9] = np.nan
    image = nib.Nifti1Image(voxels, np.diag([-1.0, 2, 3, 1]))
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(request.param))
    image = image.as_reoriented(turn)
    image.set_qform(image.affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "in.nii.gz")
    return tmp_path / "in.nii.gz"


def expected_of(model, path):
    """The slow and obvious way: the model on the whole file, in the file's own order."""
    voxels = np.asarray(nib.load(path).dataobj)[..., None]
    return model(np.nan_to_num(voxels), None), np.isnan(voxels[..., 0])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_probabilities_are_a_fourth_axis(volume, tmp_path, suffix):
    model, source = Stub(), nib.load(volume)
    expected, nodata = expected_of(model, volume)
    for kind in ("float32", "uint8"):
        out = tmp_path / f"{kind}{suffix}"
        sf.predict(model, volume, out, probabilities=kind, uncertainty=True)
        image = nib.load(tmp_path / f"{kind}.probabilities{suffix}")
        assert image.shape == (*source.shape, CLASSES)
        np.testing.assert_array_equal(image.affine, source.affine)
        for form in ("qform_code", "sform_code"):
            assert image.header[form] == source.header[form]
        assert image.header.get_xyzt_units() == ("mm", "unknown")
        assert json.loads(image.header.extensions[0].text) == ["name 0", "name 1", "name 2"]
        found = np.asarray(image.dataobj)
        if kind == "float32":
            assert image.get_data_dtype() == np.float32
            assert np.isnan(found[nodata]).all()
            np.testing.assert_allclose(found[~nodata], expected[~nodata], rtol=0, atol=1e-6)
        else:
            raw = image.dataobj.get_unscaled()
            assert raw.dtype == np.uint8
            assert image.dataobj.slope == pytest.approx(1 / 250)
            assert (raw[nodata] == 0).all()
            assert raw.max() <= 250
            np.testing.assert_allclose(found[~nodata], expected[~nodata], atol=0.5 / 250 + 1e-6)
        entropy = nib.load(tmp_path / f"{kind}.uncertainty{suffix}")
        assert entropy.shape == source.shape
        p = expected.astype(np.float64)
        np.testing.assert_allclose(
            np.asarray(entropy.dataobj),
            np.where(nodata, np.nan, -(p * np.log(p)).sum(-1) / np.log(CLASSES)),
            atol=1e-5,
        )


def test_itk_sees_the_same_geometry_and_numbers(volume, tmp_path):
    itk = pytest.importorskip("SimpleITK")
    sf.predict(Stub("regions"), volume, tmp_path / "a.nii.gz", probabilities="uint8")
    source = itk.ReadImage(str(volume))
    found = itk.ReadImage(str(tmp_path / "a.probabilities.nii.gz"))
    assert found.GetSize() == (*source.GetSize(), CLASSES)
    assert found.GetSpacing()[:3] == source.GetSpacing()
    corner = tuple(side - 1 for side in source.GetSize())
    np.testing.assert_allclose(
        found.TransformIndexToPhysicalPoint((*corner, 0))[:3],
        source.TransformIndexToPhysicalPoint(corner),
    )
    seen = np.moveaxis(itk.GetArrayFromImage(found), 0, -1).transpose(2, 1, 0, 3)
    expected, nodata = expected_of(Stub("regions"), volume)
    np.testing.assert_allclose(seen[~nodata], expected[~nodata], atol=0.5 / 250 + 1e-6)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_stopped_run_writes_the_same_layers(volume, tmp_path, suffix):
    options = {"probabilities": "float32", "uncertainty": True}
    sf.predict(Stub(), volume, tmp_path / f"whole{suffix}", batch_size=7, **options)

    def stop(done, total):
        if 2 * done > total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sf.predict(Stub(), volume, tmp_path / f"a{suffix}", progress=stop, batch_size=1, **options)
    notices = []
    sf.predict(Stub(), volume, tmp_path / f"a{suffix}", notice=notices.append, **options)
    assert "continues with" in notices[0]
    for layer in ("", ".probabilities", ".uncertainty"):
        assert (tmp_path / f"a{layer}{suffix}").read_bytes() == (
            tmp_path / f"whole{layer}{suffix}"
        ).read_bytes()


def test_a_damaged_layer_is_found(volume, tmp_path, monkeypatch):
    from segfocal.errors import OutputError
    from segfocal.io import nifti_layers_writer

    written = nifti_layers_writer.write_nifti

    def damaged(path, *arguments):
        checksum = written(path, *arguments)
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)
        return checksum

    monkeypatch.setattr(nifti_layers_writer, "write_nifti", damaged)
    with pytest.raises(OutputError, match=r"verification failed: voxels of a\.probabilities\.nii"):
        sf.predict(Stub(), volume, tmp_path / "a.nii", probabilities="uint8")
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == ["in.nii.gz"]
