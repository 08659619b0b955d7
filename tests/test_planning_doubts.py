"""Plans that are refused, doubted or explained: the words agree with the numbers."""

from __future__ import annotations

import warnings
from contextlib import ExitStack

import nibabel as nib
import numpy as np
import pytest
import rasterio
import yaml
from click.testing import CliRunner
from rasterio.transform import Affine

import segfocal as sf
from segfocal.cli import segfocal as command
from segfocal.cli.plan_table import plan_lines
from segfocal.data.reading import open_regions
from segfocal.errors import SegfocalWarning, SpecError
from segfocal.planning.device import Device
from segfocal.planning.memory import training_bytes
from segfocal.planning.scale import pixels_at
from segfocal.planning.sizes import plan_batch, plan_patch
from segfocal.presets import PRESETS
from segfocal.types import window_shape

CPU, GPU = Device("CPU, 8.0 GiB", 2**33, False), Device("GPU, 8.0 GiB", 2**33, True)


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")


@pytest.fixture
def scenes(tmp_path):
    """Return a function that writes scenes with pixels of these sizes and the spec over them."""

    def scenes(*sizes, shape=(100, 90), constant=False, codes=(0, 1), **changes):
        rng = np.random.default_rng(0)
        cases = []
        for n, size in enumerate(sizes):
            image = np.full(shape, 7.5) if constant else rng.normal(100, 20, shape)
            marks = np.resize(np.array(codes), shape)
            for name, values in (("image", image.astype("f4")), ("labels", marks.astype("u1"))):
                with rasterio.open(
                    tmp_path / f"{name}{n}.tif", "w", driver="GTiff", count=1, height=shape[0],
                    width=shape[1], dtype=values.dtype, crs="EPSG:32633",
                    transform=Affine(size, 0, 5e5 + 1e4 * n, 0, -size, 4e6),
                ) as out:  # fmt: skip
                    out.write(values, 1)
            cases.append({"id": f"s{n}", "image": f"image{n}.tif", "labels": f"labels{n}.tif"})
        document = {
            "name": "made", "ndim": 2, "channels": ["x"],
            "classes": [{"value": 0, "name": "other"}, {"value": 1, "name": "house"}],
            "cases": cases, "splits": {"train": [case["id"] for case in cases]}, **changes,
        }  # fmt: skip
        path = tmp_path / "spec.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return scenes


def planned(path, **options):
    """Return a plan and what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = sf.make_plan(sf.load_spec(path), **options)
    assert all(issubclass(one.category, SegfocalWarning) for one in caught)
    return plan, [str(one.message).removeprefix("spec 'made': ") for one in caught]


def checked(path, level):
    return [f.text for f in sf.check_spec(path, pixels=False).findings if f.level == level]


@pytest.mark.parametrize("region", [{}, {"rows": [0, 60]}])
@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (20000.0, " pixels at the resolution; expected at least one"),
        (1e9, "e-06 pixels at the resolution; expected at least one"),
        (1.7e308, " pixels at the resolution; expected at least one"),
        (0.0003, "each would become 100000 pixels long; expected at most 1000"),
        (1e-300, "each would become 3e+301 pixels long"),
        (5e-324, "each would become inf pixels long"),
    ],
)
def test_a_resolution_at_which_nothing_can_be_learned_is_a_fault_and_no_plan(
    scenes, tmp_path, side, expected, region
):
    spec = scenes(30.0, resolution=[side, side], splits={"train": [{"case": "s0", **region}]})
    (fault,) = checked(spec, "fault")
    assert expected in fault
    assert "the file's pixels are 30 x 30 metres" in fault
    done = CliRunner().invoke(command, ["plan", str(spec), "-o", str(tmp_path / "plan.yaml")])
    assert done.exit_code == 2
    assert done.stderr == f"segfocal: error: spec 'made': case 's0': {fault}\n"
    assert not (tmp_path / "plan.yaml").exists()


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (25.0, None),
        (61.0, "2.03 times apart"),
        (700.0, "23.3 times apart"),
        (0.5, "60 times apart"),
    ],
)
def test_a_resolution_far_from_the_files_is_doubted_by_check_and_plan(scenes, side, expected):
    spec = scenes(30.0, resolution=[side, side])
    told = (
        []
        if expected is None
        else [f"pixels of 30 x 30, resolution {side:g} x {side:g}: {expected}"]
    )
    assert [t for t in checked(spec, "warning") if t.startswith("pixel")] == told
    plan, doubts = planned(spec)
    assert doubts == told
    assert f"{plan.card.resolution[0]:g}" == f"{side:g}"


def test_one_scan_far_from_the_resolution_is_enough_for_a_doubt(scenes):
    assert planned(scenes(10.0, 25.0, resolution=[20, 20]))[1] == []
    _, doubts = planned(scenes(10.0, 250.0, resolution=[20, 20]))
    assert doubts == ["pixels of 10 x 10 to 250 x 250, resolution 20 x 20: 12.5 times apart"]


def test_scenes_of_other_pixel_sizes_are_doubted_unless_they_are_resampled(scenes):
    spec = scenes(10.0, 10.0, 30.0)
    told = "pixel sizes differ from 10 x 10 to 30 x 30; a network sees them as one: give a "
    assert [text.startswith(told) for text in planned(spec)[1]] == [True]
    assert any(text.startswith(told) for text in checked(spec, "warning"))
    assert planned(scenes(10.0, 10.0, 30.0, resolution=[20, 20]))[1] == []


@pytest.mark.parametrize("side", [7.0, 9.9, 10.0, 10.05, 12.0, 21.0, 60.0, 333.0])
@pytest.mark.parametrize("region", [{}, {"rows": [40, 100], "cols": [0, 41]}])
def test_regions_are_planned_with_the_sides_that_training_reads(scenes, side, region):
    spec = sf.load_spec(scenes(10.0, splits={"train": [{"case": "s0", **region}]}))
    with ExitStack() as stack:
        (own,) = open_regions(spec, "train", stack)
        sides = pixels_at(own.window, own.shape, own.resolution, (side, side))
        if 0 in sides:
            with pytest.raises(SpecError, match="holds none of"):
                open_regions(spec, "train", stack, resolution=(side, side))
        else:
            (read,) = open_regions(spec, "train", stack, resolution=(side, side))
            assert sides == window_shape(read.window)


def test_a_channel_of_one_value_is_doubted(scenes):
    _, doubts = planned(scenes(10.0, constant=True))
    assert [text.split(",")[0] for text in doubts] == [
        "channel 'x': one value everywhere in split 'train'"
    ]
    assert planned(scenes(10.0))[1] == []


def test_a_class_that_train_lacks_is_doubted_and_its_chance_explained(scenes):
    classes = [{"value": n, "name": name} for n, name in enumerate(["a", "b", "built-up"])]
    plan, doubts = planned(scenes(10.0, classes=classes))
    assert plan.class_chances[2] == 0
    assert "none for built-up, which train does not have" in plan.reasons["class_chances"]
    assert "the same for all" not in plan.reasons["class_chances"]
    assert [text.split(",")[0] for text in doubts] == [
        "class 'built-up': no pixel in split 'train'"
    ]
    (line,) = [text for key, text in plan_lines(plan) if key == "class_chances"]
    assert line.startswith("1, but 0 for built-up - none for built-up")
    plan, doubts = planned(scenes(10.0))
    assert plan.reasons["class_chances"].startswith("the same for all; the rarest, ")
    assert doubts == []


def test_the_reason_of_a_patch_names_each_limit_that_counted():
    patch, why = plan_patch(np.array([[443.0, 236]]), None, PRESETS["nano"], 6, 7, CPU)
    assert patch == (224, 128)
    assert why == (
        "regions have at least 443 x 236 pixels; two thirds are 295 x 157; at most 1.5 : 1, so "
        "that patches may be turned: 236 x 157; multiples of 32"
    )
    patch, why = plan_patch(np.array([[240.0, 200]]), None, PRESETS["nano"], 6, 7, CPU)
    assert why == (
        "regions have at least 240 x 200 pixels; two thirds are 160 x 133; multiples of 32"
    )


def test_the_reason_of_a_patch_tells_how_much_of_a_thin_volume_is_mirrored():
    shapes = np.array([[60.0, 60, 2], [60, 60, 2]])
    patch, why = plan_patch(shapes, (1, 1, 10), PRESETS["nano"], 1, 2, CPU)
    assert patch == (64, 64, 32)
    assert why.endswith("multiples of 32; mirrored are 4 of 64, 4 of 64, 30 of 32")
    _, why = plan_patch(np.array([[64.0, 64, 64]]), (1, 1, 1), PRESETS["nano"], 1, 2, CPU)
    assert "mirrored" not in why


@pytest.mark.parametrize(
    ("patch", "place", "size", "why"),
    [
        ((64, 64), CPU, 16, "at most 16; "),
        ((224, 128), CPU, 13, "about 393216 pixels a step on a CPU; "),
        ((1024, 1024), CPU, 2, "at least 2; "),
        ((128, 128), Device("CPU, 0.2 GiB", 2**28, False), None, "as many as fit into memory (CPU"),
        ((512, 512), GPU, None, "as many as fit into memory (GPU, 8.0 GiB less 20%); "),
        ((64, 64), Device("CPU, 1.0 KiB", 1024, False), 2, "at least 2, which do not fit into "),
    ],
)
def test_the_reason_of_a_batch_is_the_limit_that_decided(patch, place, size, why):
    found, reason = plan_batch(patch, PRESETS["nano"], 3, 5, place)
    assert reason.startswith(why)
    assert "by estimate" in reason
    if size is not None:
        assert found == size
        return
    room = place.bytes * (0.8 if place.is_gpu else 1)

    def taken(batch):
        return training_bytes(PRESETS["nano"], patch, batch, channels=3, classes=5)

    assert taken(found) <= room < taken(found + 1)


def test_memory_that_not_even_the_smallest_step_fits_into_is_doubted(scenes):
    spec = scenes(10.0)
    plan, doubts = planned(spec, device="cpu", memory="1KB")
    assert (plan.patch, plan.batch_size) == ((32, 32), 2)
    assert [text.split(" takes about")[0] for text in doubts] == [
        "a step on 2 patches of 32 x 32 pixels"
    ]
    assert "training may take 1.0 KiB" in doubts[0]
    assert "the smallest, of which 2 do not fit (CPU, 1.0 KiB)" in plan.reasons["patch"]
    assert planned(spec, device="cpu", memory="1GB")[1] == []
    _, doubts = planned(spec, device="cpu", memory="1GB", patch=(2048, 2048), batch_size=8)
    assert doubts[0].startswith("a step on 8 patches of 2048 x 2048 pixels takes about")


def test_each_number_is_printed_before_its_reason(scenes):
    plan, _ = planned(scenes(10.0), seed=3)
    lines = dict(plan_lines(plan))
    assert lines["card.resolution"] == "10 x 10 - that of the scan, in metres"
    (channel,) = plan.card.channels
    assert lines["normalization"].startswith(
        f"x {channel.mean:.4g} ± {channel.std:.4g} - mean and "
    )
    sides = " x ".join(map(str, plan.patch))
    assert lines["patch"] == f"{sides} - {plan.reasons['patch']}"
    assert lines["resample"].startswith("no - ")
    assert lines["mirror_axes"].startswith("0, 1 - ")
    assert lines["augmentation"].startswith("quarter turns, rotation, ")
    for key in (
        "learning_rate",
        "weight_decay",
        "class_share",
        "deep_supervision",
        "seed",
        "steps",
    ):
        assert lines[key] == f"{getattr(plan, key)} - {plan.reasons[key]}"
    plan, _ = planned(scenes(10.0), augmentation="none")
    lines = dict(plan_lines(plan))
    assert lines["mirror_axes"] == "none - asked for: none"
    assert lines["augmentation"] == "none - asked for: none"


@pytest.mark.parametrize("thick", [False, True])
def test_volumes_of_other_spacings_are_resampled_and_need_no_warning(tmp_path, thick):
    rng = np.random.default_rng(0)
    cases = []
    for n, spacing in enumerate([1.0, 3.0, 3.0]):
        affine = np.diag([1, 1, spacing, 1])
        image, marks = rng.normal(9, 1, (8, 8, 6)), rng.integers(0, 2, (8, 8, 6))
        nib.save(nib.Nifti1Image(image.astype("f4"), affine), tmp_path / f"{n}.nii.gz")
        nib.save(nib.Nifti1Image(marks.astype("u1"), affine), tmp_path / f"{n}_l.nii.gz")
        cases.append({"id": f"v{n}", "image": f"{n}.nii.gz", "labels": f"{n}_l.nii.gz"})
    train = ["v1", "v2", {"case": "v0", "cols": [0, 6] if thick else [0, 1]}]
    path = tmp_path / "spec.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "made", "ndim": 3, "channels": ["mr"], "cases": cases,
                "classes": [{"value": 0, "name": "a"}, {"value": 1, "name": "b"}],
                "splits": {"train": train},
            }
        )
    )  # fmt: skip
    assert not any(text.startswith("pixel") for text in checked(path, "warning"))
    if thick:
        plan, doubts = planned(path)
        assert (plan.card.resolution, plan.resample, doubts) == ((1, 1, 3), True, [])
    else:  # training could not read it either
        with pytest.raises(SpecError, match=r"'v0': a region of 8 x 8 x 1 pixels has 8 x 8 x 0 at"):
            planned(path)
