"""Models of two axes on volumes, against the model run on each slice by a plain loop."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

import segfocal as sf
from segfocal.card import Card, Channel, LabelClass
from segfocal.engine.slices import slice_axis_of
from segfocal.errors import GeometryError, ModelError

SHAPE = (14, 17, 23)


class Stub:
    """A mean over 3 x 3 pixels of each channel, as two classes; what it was called with."""

    ndim, output_stride, hash, engine, batch_matters = 2, 1, "stub", "numpy", False

    def __init__(self, slices=1, channels=1, orientation=None, tile=(9, 12)):
        self.shapes = []
        self.card = Card(
            channels=tuple(Channel(name=f"c{i}") for i in range(channels)),
            classes=tuple(LabelClass(value=v, name=f"n{v}", color=(v, 0, 0)) for v in (0, 5)),
            tile=tile,
            slices=slices,
            orientation=orientation,
        )

    def weigh(self, image):
        """Return a number per pixel, (batch, rows, cols): other for other orders of channels."""
        mean = ndimage.uniform_filter(image, (0, 3, 3, 0), mode="mirror")
        return mean @ np.arange(1, image.shape[-1] + 1, dtype=np.float32)

    def __call__(self, values, valid):
        self.shapes.append(values.shape)
        p = 1 / (1 + np.exp(-self.weigh(values)))
        return np.stack([1 - p, p], -1).astype(np.float32)


def normal(*channels):
    return np.random.default_rng(0).normal(0, 1, (*SHAPE, *channels)).astype(np.float32)


def by_loop(model, array, axis):
    """Return p of class 1 per voxel: each slice, with its neighbours, in a plain loop."""
    around = model.card.slices // 2
    padding = [(around, around) if i == axis else (0, 0) for i in range(4)]
    padded = np.moveaxis(np.pad(array, padding, mode="reflect"), axis, 0)
    found = []
    for middle in range(around, len(padded) - around):
        planes = [padded[middle + k] for k in range(-around, around + 1)]
        found.append(model(np.concatenate(planes, -1)[None], None)[0, ..., 1])
    return np.moveaxis(np.array(found), 0, axis)


def streamed(model, scan, **options):
    found = np.full(scan.shape, np.nan)
    for window, probabilities in sf.stream(model, scan, **options):
        found[window] = probabilities[..., 1]
    return found


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("slices", "channels"), [(1, 1), (3, 2), (5, 1)])
def test_each_voxel_is_what_its_slice_gives(axis, slices, channels):
    model, array = Stub(slices, channels), normal(channels)
    options = {"slice_axis": axis, "tile": (11, 11), "halo": 1, "batch_size": 3}
    found = streamed(model, sf.MemoryScan(array), **options)
    assert {len(shape) for shape in model.shapes} == {4}
    assert {shape[1:] for shape in model.shapes} == {(11, 11, slices * channels)}
    np.testing.assert_allclose(found, by_loop(model, array, axis), atol=1e-6)


def test_a_stack_is_about_as_deep_as_the_others():
    model = Stub(3)
    streamed(model, sf.MemoryScan(normal(1)), slice_axis=2, tile=(17, 17), overlap=0, batch_size=1)
    # 23 slices in two stacks of 12: one slice more than there are.
    assert len(model.shapes) == 24


def test_labels_and_provenance(tmp_path):
    image = nib.Nifti1Image(normal(), np.diag([-1.0, 2, 1, 1]))
    nib.save(image, tmp_path / "v.nii.gz")
    model = Stub(orientation="LPS", tile=(30, 30))
    sf.predict(model, tmp_path / "v.nii.gz", tmp_path / "a.nii.gz", slice_axis="sagittal")
    array = np.asarray(image.dataobj)[:, ::-1, :, None]  # L and S are the file's; P is not
    expected = np.where(by_loop(model, array, 0) > 0.5, 5, 0)[:, ::-1]
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj), expected)
    told = json.loads((tmp_path / "a.nii.gz.json").read_text())
    assert told["parameters"]["slice_axis"] == 0
    other = sf.predict(model, tmp_path / "v.nii.gz", tmp_path / "b.nii.gz", slice_axis="axial")
    assert other.fingerprint != told["fingerprint"]
    same = sf.predict(model, tmp_path / "v.nii.gz", tmp_path / "c.nii.gz", slice_axis="coronal")
    assert sf.predict(model, tmp_path / "v.nii.gz", tmp_path / "d.nii.gz").sha256 == same.sha256


@pytest.mark.parametrize(
    ("spacing", "wanted", "expected"),
    [
        ((1, 1, 1), None, 2),  # PIR: the file's last axis runs right, which is 0 of RAS
        ((1, 3, 1), None, 1),
        ((3, 1, 1), None, 0),
        ((1.005, 1, 1), None, 2),
        ((1, 1, 1), "axial", 2),
        ((1, 1, 1), "coronal", 1),
        ((1, 1, 1), "sagittal", 0),
        ((1, 1, 1), 1, 1),
    ],
)
def test_the_axis_is_that_of_the_largest_spacing_or_the_file(tmp_path, spacing, wanted, expected):
    nib.save(nib.Nifti1Image(normal(), np.diag([*spacing, 1])), tmp_path / "v.nii")
    with sf.open_scan(tmp_path / "v.nii") as scan:
        assert slice_axis_of(scan, wanted) == expected


def test_the_files_slowest_axis_may_be_any(tmp_path):
    affine = np.array([[0, 0, 1.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(normal(), affine), tmp_path / "v.nii")
    with sf.open_scan(tmp_path / "v.nii") as scan:
        assert slice_axis_of(scan) == 0
        assert slice_axis_of(scan, "axial") == 2


@pytest.mark.parametrize("tta", ["flips", "rotations"])
def test_augmented_slices_are_turned_in_their_plane(tta):
    model, array = Stub(3, tile=(40, 40)), normal(1)
    found = streamed(model, sf.MemoryScan(array), slice_axis=1, tta=tta)
    # The model's filter is symmetric: with whole slices in a tile, turning changes nothing.
    np.testing.assert_allclose(
        found, streamed(model, sf.MemoryScan(array), slice_axis=1), atol=1e-6
    )


def test_a_plain_function_of_two_axes():
    array = normal(1)

    def mean(tiles):
        assert tiles.ndim == 4
        return np.concatenate([tiles, -tiles], -1)

    found = streamed(mean, sf.MemoryScan(array), slice_axis=1, tile=16)
    np.testing.assert_allclose(found, -array[..., 0], atol=1e-6)


def test_what_does_not_go_together_is_refused(tmp_path):
    volume = sf.MemoryScan(normal(1))
    with pytest.raises(GeometryError, match="'axial'; expected 0, 1 or 2, as an array has no"):
        sf.stream(Stub(), volume, slice_axis="axial")
    with pytest.raises(GeometryError, match=r"slice_axis 1 is for .*; the scan is a scene"):
        sf.stream(Stub(), sf.MemoryScan(normal()), slice_axis=1)
    model = Stub()
    model.ndim = 3
    with pytest.raises(GeometryError, match="the model works on 3 axes: leave it out"):
        sf.stream(model, volume, slice_axis=1)
    frozen = Stub()
    frozen.global_context = "frozen"
    with pytest.raises(ModelError, match="a frozen context of a model of two axes"):
        sf.stream(frozen, volume)
    nib.save(nib.Nifti1Image(normal(), np.eye(4)), tmp_path / "v.nii")
    with (
        sf.open_scan(tmp_path / "v.nii") as scan,
        pytest.raises(GeometryError, match="slice_axis 3; expected sagittal, coronal, axial"),
    ):
        sf.stream(Stub(), scan, slice_axis=3)


def test_a_network_takes_the_channels_of_all_slices():
    card = Stub(3, 2).card
    model = sf.FocalUNet(card=card, preset="nano")
    assert model.input["image"].shape[-1] == 6
    array = normal(2)[:, :, :3]
    found = streamed(model, sf.MemoryScan(array), slice_axis=2, tile=32, batch_size=1)
    planes = np.concatenate([array[:, :, k] for k in range(3)], -1)[None]
    inputs = {"image": np.zeros((1, 32, 32, 6), np.float32)}
    for axis, length in ((1, 32), (2, 32)):
        pad = [(0, 0)] * 4
        pad[axis] = (0, length - planes.shape[axis])
        planes = np.pad(planes, pad, mode="reflect")
    inputs["image"][:] = planes
    logits = model.predict_on_batch(inputs["image"])
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(found[:, :, 1], expected[0, :14, :17, 1], atol=1e-5)


def test_slices_are_an_odd_number_and_not_written_when_one():
    assert "slices" not in Stub().card.model_dump(mode="json")
    stored = Stub(5).card.model_dump(mode="json")
    assert stored["slices"] == 5
    assert Card.from_json(stored) == Stub(5).card
    for wrong in ({"slices": 2}, {"slices": 3, "ndim": 3, "tile": None}):
        with pytest.raises(ModelError, match=r"slices . of . axes; expected an odd number"):
            Card.from_json({**stored, **wrong})
