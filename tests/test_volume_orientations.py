"""Volumes stored in each of the 48 orientations: the same labels in the same places."""

from __future__ import annotations

import itertools
import os
import warnings

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

import segfocal as sf
from segfocal.card import Card, Channel, LabelClass
from segfocal.errors import SegfocalWarning

SHAPE = (9, 11, 13)
ORIENTATIONS = [
    "".join(letters)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for letters in itertools.product(*axes)
]
LEVELS = np.array([-30.0, 0, 55, 90])
VALUES = (0, 3, 7, 200)


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch):
    """Hundreds of small files, none of which has to outlive a power cut."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


class Stub:
    """Class of the nearest level."""

    ndim, output_stride, hash, engine, batch_matters = 3, 1, "stub", "numpy", False
    card = Card(
        ndim=3,
        channels=(Channel(name="a"),),
        classes=tuple(LabelClass(value=v, name=f"class {v}", color=(v, 0, 0)) for v in VALUES),
        tile=(12, 12, 12),
        orientation="LPS",
    )

    def __call__(self, values, valid):
        near = 1 / (0.01 + np.abs(values - LEVELS))
        return (near / near.sum(-1, keepdims=True)).astype(np.float32)


def rotated():
    """An oblique affine with three spacings, orthogonal."""
    c, s = np.cos(0.3), np.sin(0.3)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ [[1, 0, 0], [0, c, -s], [0, s, c]]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ np.diag([0.8, 1.2, 2.5]), (-40, 12, 99)
    return affine


def source_image(kind, affine):
    values = np.random.default_rng(0).choice([0, 40, 90], SHAPE)
    if kind == "int16 with slope":
        image = nib.Nifti1Image((values * 2 + 60).astype(np.int16), affine)
        image.header.set_slope_inter(0.5, -30)
    else:
        image = nib.Nifti1Image(values.astype(kind), affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 2)
    image.header.set_xyzt_units("mm", "sec")
    return image


def stored(image, orientation):
    """Return an image stored otherwise, its voxels and slope kept."""
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(orientation))
    slope = image.header.get_slope_inter()
    turned = image.as_reoriented(turn)
    turned.set_sform(turned.affine, 1)
    turned.set_qform(turned.affine, 2)
    turned.header.set_slope_inter(*slope)
    return turned


def save(image, path):
    """Save the voxels as they are behind the header, its slope with them."""
    slope, inter = image.header.get_slope_inter()
    nib.save(image, path)
    if slope is not None and (slope, inter) != (1, 0):
        assert (nib.load(path).dataobj.slope, nib.load(path).dataobj.inter) == (slope, inter)


def corners(shape):
    return itertools.product(*((0, side - 1) for side in shape))


def check_places(source_path, output_path):
    """Where nibabel and ITK agreed on the corners of the input, they do on the output's."""
    itk = pytest.importorskip("SimpleITK")
    source, output = nib.load(source_path), nib.load(output_path)
    seen = [itk.ReadImage(str(path)) for path in (source_path, output_path)]
    assert output.shape == source.shape
    np.testing.assert_array_equal(output.affine, source.affine)
    for what in ("qform_code", "sform_code", "xyzt_units"):
        assert output.header[what] == source.header[what]
    agreed = 0
    for corner in corners(source.shape):
        of_input, of_output = (
            np.array(image.TransformIndexToPhysicalPoint(corner)) for image in seen
        )
        by_nibabel = (source.affine @ [*corner, 1])[:3] * [-1, -1, 1]
        np.testing.assert_allclose(of_output, of_input, atol=1e-9)
        if np.allclose(of_input, by_nibabel, atol=1e-3):
            agreed += 1
            by_nibabel = (output.affine @ [*corner, 1])[:3] * [-1, -1, 1]
            np.testing.assert_allclose(of_output, by_nibabel, atol=1e-3)
    return agreed


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", ["int16 with slope", "float32", "uint8"])
def test_labels_of_a_turned_file_are_the_turned_labels(tmp_path, kind, suffix):
    image = source_image(kind, rotated())
    save(image, tmp_path / f"source{suffix}")
    sf.predict(Stub(), tmp_path / f"source{suffix}", tmp_path / f"labels{suffix}")
    labels = nib.load(tmp_path / f"labels{suffix}")
    assert len(np.unique(labels.dataobj)) == 3
    scan = nib.load(tmp_path / f"source{suffix}").get_fdata()
    nearest = np.abs(scan[..., None] - LEVELS).argmin(-1)
    np.testing.assert_array_equal(np.asarray(labels.dataobj), np.array(VALUES)[nearest])
    for orientation in ORIENTATIONS:
        source, output = (tmp_path / f"{name}_{orientation}{suffix}" for name in ("in", "out"))
        save(stored(image, orientation), source)
        sf.predict(Stub(), source, output)
        expected = labels.as_reoriented(
            ornt_transform(io_orientation(labels.affine), axcodes2ornt(orientation))
        )
        np.testing.assert_array_equal(
            np.asarray(nib.load(output).dataobj), np.asarray(expected.dataobj)
        )
        assert nib.load(output).get_data_dtype() == np.uint8
        assert check_places(source, output) == 8


def test_skewed_axes_pass_untouched_with_a_warning(tmp_path):
    affine = rotated()
    affine[:3, 1] += 0.1 * affine[:3, 0]
    image = source_image("uint8", affine)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "in.nii")
    with pytest.warns(SegfocalWarning, match=r"in\.nii: its axes are up to .* from orthogonal"):
        sf.predict(Stub(), tmp_path / "in.nii", tmp_path / "out.nii")
    source, output = nib.load(tmp_path / "in.nii"), nib.load(tmp_path / "out.nii")
    np.testing.assert_array_equal(output.affine, source.affine)
    for name in ("srow_x", "srow_y", "srow_z", "sform_code", "qform_code"):
        np.testing.assert_array_equal(output.header[name], source.header[name])


def test_where_the_two_forms_differ_both_stay(tmp_path):
    """nibabel goes by the sform; what ITK goes by is its own business."""
    image = source_image("float32", rotated())
    image.set_qform(np.diag([0.8, 1.2, 2.5, 1]), 1)
    image.set_sform(rotated(), 2)
    nib.save(image, tmp_path / "in.nii.gz")
    with warnings.catch_warnings(action="error"):
        sf.predict(Stub(), tmp_path / "in.nii.gz", tmp_path / "out.nii.gz")
    check_places(tmp_path / "in.nii.gz", tmp_path / "out.nii.gz")
    source, output = nib.load(tmp_path / "in.nii.gz"), nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(output.get_qform(), source.get_qform())
    np.testing.assert_array_equal(output.get_sform(), source.get_sform())
