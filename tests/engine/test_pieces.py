"""Connected pieces of label maps, against ITK's filters."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

import segfocal as sf
from segfocal.card import Card, Channel, LabelClass
from segfocal.engine import pieces
from segfocal.engine.label_map import LabelMap
from segfocal.engine.piece_options import piece_steps
from segfocal.engine.pieces import FillHoles, KeepLarge, KeepLargest
from segfocal.errors import OutputError
from segfocal.types import full_window

itk = pytest.importorskip("SimpleITK")
SHAPES = [(23, 19, 27), (40, 51)]
NODATA = 4


@pytest.fixture(autouse=True)
def _small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_SLAB_PIXELS", 1500)


def blobs(shape: tuple[int, ...], seed: int = 0, smooth: float = 1.5) -> np.ndarray:
    """Label indices 0 to 3 in pieces of all sizes."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=shape), smooth) for _ in range(4)]
    fields[0] += 0.02
    return np.argmax(fields, 0).astype(np.uint8)


def cleaned(array: np.ndarray, step: object, path: Path, slow_axis: int = 0) -> np.ndarray:
    with LabelMap(path / "map", array.shape, NODATA, slow_axis=slow_axis) as labels:
        labels.write(full_window(array.shape), array)
        step(labels)
        return labels.read(full_window(array.shape))


def relabelled(mask: np.ndarray) -> np.ndarray:
    """Number the pieces of a mask by size, the largest first, with ITK."""
    joined = itk.ConnectedComponent(itk.GetImageFromArray(mask.astype(np.uint8)), True)
    return itk.GetArrayFromImage(itk.RelabelComponent(joined, sortByObjectSize=True))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("slow_axis", [0, -1])
def test_the_largest_piece_is_itks(shape, slow_axis, tmp_path):
    array = blobs(shape)
    found = cleaned(array, KeepLargest((1, 3), 0), tmp_path, slow_axis % len(shape))
    expected = array.copy()
    for index in (1, 3):
        numbers = relabelled(array == index)
        assert numbers.max() > 1
        expected[numbers > 1] = 0
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("least", [2, 10, 60])
def test_pieces_of_a_size_stay_as_itk_counts_them(shape, least, tmp_path):
    array = blobs(shape, 1, 0.8)
    found = cleaned(array, KeepLarge((0, 1, 3), 2, least), tmp_path)
    expected = array.copy()
    for index in (0, 1, 3):
        image = itk.GetImageFromArray((array == index).astype(np.uint8))
        joined = itk.ConnectedComponent(image, True)
        kept = itk.GetArrayFromImage(itk.RelabelComponent(joined, minimumObjectSize=least)) > 0
        expected[(array == index) & ~kept] = 2
    assert (expected != array).any()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_holes_of_one_class_are_itks(shape, seed, tmp_path):
    array = (blobs(shape, seed, 1.0) > 1).astype(np.uint8)
    image = itk.GetImageFromArray(array)
    expected = itk.GetArrayFromImage(itk.BinaryFillhole(image, fullyConnected=False))
    assert (expected != array).any()
    np.testing.assert_array_equal(cleaned(array, FillHoles((1,), 0), tmp_path), expected)


def test_a_hole_is_the_only_class_around_it(tmp_path):
    array = np.zeros((9, 30), np.uint8)
    for left in range(0, 30, 6):
        array[1:8, left : left + 5] = 1
        array[3:6, left + 1 : left + 4] = 0
    array[2, 8] = 2  # another class beside the second hole,
    array[3, 14] = NODATA  # no data beside the third,
    array[4, 18] = 0  # a leak of the fourth,
    array[2:7, 25] = 1
    array[2, 24] = 0  # and a corner at the fifth, which leaks nothing
    found = cleaned(array, FillHoles((1,), 0), tmp_path)
    filled = (found != array).any(0)
    assert filled[1:4].all()
    assert not filled[6:23].any()
    assert filled[26:28].all()
    assert (found[found != array] == 1).all()
    assert (cleaned(array, FillHoles((2,), 0), tmp_path) == array).all()


def test_of_equal_pieces_the_first_stays(tmp_path):
    array = np.array([[1, 0, 1, 0, 1]], np.uint8)
    found = cleaned(array, KeepLargest((1, 2), 0), tmp_path)
    assert found.tolist() == [[1, 0, 0, 0, 0]]


class Stub:
    """Class by rounded value."""

    ndim, output_stride, hash, engine, batch_matters = 3, 1, "stub", "numpy", False

    def __init__(self, values=(5, 0, 9), task="classes"):
        self.card = Card(
            ndim=3,
            channels=(Channel(name="a"),),
            classes=tuple(LabelClass(value=v, name=f"n{v}", color=(v, 0, 0)) for v in values),
            task=task,
            tile=(16, 16, 16),
            orientation="RAS",
        )

    def __call__(self, values, valid):
        found = values == [label.value for label in self.card.classes]
        return found.astype(np.float32)


@pytest.fixture
def volume(tmp_path):
    array = np.array([0, 5, 9], np.uint8)[np.minimum(blobs((24, 20, 22)), 2)]
    image = nib.Nifti1Image(
        array, np.array([[0, -2.0, 0, 0], [1, 0, 0, 0], [0, 0, 1.5, 0], [0, 0, 0, 1]])
    )
    nib.save(image, tmp_path / "v.nii.gz")
    return tmp_path / "v.nii.gz"


def test_steps_follow_one_another_and_are_told(volume, tmp_path):
    """Voxels of 3 mm³, so that 20 mm³ are 7 of them."""
    out = tmp_path / "a.nii.gz"
    result = sf.predict(
        Stub(), volume, out, largest_component=["n9"], min_volume=20, fill_holes="all"
    )
    array = np.asarray(nib.load(volume).dataobj)
    expected = array.copy()
    expected[relabelled(array == 9) > 1] = 0
    numbers = relabelled(expected == 5)
    sizes = np.bincount(numbers.ravel())
    expected[(numbers > 0) & (sizes < 7)[numbers]] = 0
    found = np.asarray(nib.load(out).dataobj)
    changed = found != expected
    assert (expected[changed] == 0).all()  # holes, which are tested above
    assert changed.mean() < 0.02
    assert (expected != array).any()
    counts = [(found == label["value"]).sum() for label in result.classes]
    assert [label["pixels"] for label in result.classes] == counts
    told = json.loads((tmp_path / "a.nii.gz.json").read_text())["parameters"]["cleaning"]
    assert told == [
        {"largest_component": {"classes": [2]}},
        {"min_volume": {"classes": [0, 2], "min_pixels": 7}},
        {"fill_holes": {"classes": [0, 2]}},
    ]
    plain = sf.predict(Stub(), volume, tmp_path / "b.nii.gz")
    assert plain.fingerprint != result.fingerprint
    limited = sf.predict(
        Stub(), volume, tmp_path / "c.nii.gz", largest_component=["n9"], min_volume=20,
        fill_holes="all", max_memory="8GB",
    )  # fmt: skip
    assert (limited.fingerprint, limited.sha256) == (result.fingerprint, result.sha256)


def test_regions_become_none(volume, tmp_path):
    sf.predict(Stub((5, 9), "regions"), volume, tmp_path / "a.nii.gz", largest_component="n5")
    array = np.asarray(nib.load(volume).dataobj)
    expected = np.where(relabelled(array == 5) > 1, 0, array)
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj), expected)


def test_what_cannot_be_done_is_refused_before_the_first_tile(volume, tmp_path):
    class Untouched(Stub):
        def __call__(self, values, valid):
            raise AssertionError("run")

    cases = [
        (Untouched((5, 9)), {"fill_holes": "all"}, "fill_holes: no class of the model has value 0"),
        (Untouched(), {"fill_holes": "n0"}, "class 'n0'; expected all, or names among n5, n9"),
        (Untouched(), {"largest_component": ["n5", "x"]}, "class 'x'; expected all"),
        (Untouched(), {"min_volume": 0}, "expected cubic millimetres above 0"),
        (Untouched(), {"min_volume": 5, "max_memory": "1MB"}, "whole label map of .* 0 MB beside"),
    ]
    for model, options, message in cases:
        with pytest.raises(OutputError, match=message):
            sf.predict(model, volume, tmp_path / "a.nii.gz", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["v.nii.gz"]
    card = Stub().card
    assert piece_steps(card, sf.MemoryScan(np.zeros((3, 3, 3, 1))), fill_holes=()) == ()
    with pytest.raises(OutputError, match="is no volume of known spacing"):
        piece_steps(card, sf.MemoryScan(np.zeros((3, 3, 1))), min_volume=3)
