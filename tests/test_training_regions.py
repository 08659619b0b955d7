"""Training on labels that say more, or less, than one class of each pixel."""

from __future__ import annotations

import json
from contextlib import ExitStack

import keras
import nibabel as nib
import numpy as np
import pytest
import rasterio
import yaml
from rasterio.transform import Affine
from scipy import ndimage
from sklearn.metrics import (
    confusion_matrix,
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
)

import segfocal as sf
from segfocal.data.reading import open_regions
from segfocal.data.sampling import PatchSampler
from segfocal.errors import ModelError
from segfocal.losses import AtScale, Boundary, DiceBinaryCrossEntropy, DiceCrossEntropy, WeightedSum
from segfocal.losses.tasks import tasks_of
from segfocal.metrics import MeanRegionIoU
from segfocal.report.views import case_view

SHAPE = (32, 28, 24)
REGIONS = {"whole tumour": [1, 2, 3], "tumour core": [2, 3], "enhancing": [3]}


def tumour(rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Three balls in one another, and two modalities of which neither shows all of them."""
    centre = np.array(SHAPE) / 2 + rng.uniform(-4, 4, 3)
    away = np.linalg.norm(np.indices(SHAPE).T - centre, axis=-1).T / rng.uniform(8, 9)
    labels = sum((away < part).astype("uint8") for part in (1, 0.75, 0.5))
    shown = ([0, 1, 1, 1], [0, 0, 1.5, 3])
    noisy = [np.array(one)[labels] + rng.normal(0, 0.25, SHAPE) for one in shown]
    return labels, [ndimage.gaussian_filter(image, 0.5) + 5 for image in noisy]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset of nnU-Net with regions: six cases of two modalities."""
    folder = tmp_path_factory.mktemp("brain")
    rng = np.random.default_rng(0)
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir()
    for number in range(6):
        labels, images = tumour(rng)
        if number == 1:
            labels[:, :, :6] = 4  # not drawn by anybody
        for channel, image in enumerate(images):
            name = folder / "imagesTr" / f"case{number}_{channel:04}.nii.gz"
            nib.save(nib.Nifti1Image(image.astype("float32"), np.eye(4)), name)
        nib.save(nib.Nifti1Image(labels, np.eye(4)), folder / "labelsTr" / f"case{number}.nii.gz")
    document = {
        "channel_names": {"0": "FLAIR", "1": "T1CE"},
        "labels": {"background": 0, **REGIONS, "ignore": 4},
        "regions_class_order": [1, 2, 3],
        "numTraining": 6,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(document))
    sf.import_spec(folder, folder / "spec.yaml")
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    spec = sf.load_spec(folder / "spec.yaml")
    plan = sf.make_plan(spec, steps=45, patch=SHAPE, batch_size=2, augmentation="light")
    model = sf.FocalUNet.from_plan(spec, plan)
    return spec, model, sf.train(model, spec, plan, folder / "run")


def test_regions_are_learned_from_a_dataset_of_nnunet(trained):
    spec, _, run = trained
    lines = [json.loads(line) for line in run.log.read_text().splitlines()]
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert lines[-1]["mean_iou"] > 0.5
    card = sf.load_model(run.model).card
    assert (card.task, card.num_classes) == ("regions", 3)
    page = (run.folder / "report.html").read_text()
    assert all(label.name in page for label in spec.classes)


def test_a_held_out_scan_gets_a_probability_of_each_region(trained, tmp_path):
    spec, _, run = trained
    case = spec.case(spec.regions("val")[0].case)
    out = tmp_path / "labels.nii.gz"
    sf.predict(run.model, list(spec.image_files(case)), out, probabilities="float32")
    probabilities = np.asarray(nib.load(tmp_path / "labels.probabilities.nii.gz").dataobj)
    values = np.asarray(nib.load(spec.path(case.labels)).dataobj)
    found = probabilities > 0.5
    for k, inside in enumerate(REGIONS.values()):
        truth = np.isin(values, inside)
        assert jaccard_score(truth.ravel(), found[..., k].ravel()) > 0.5
    # They overlap: their sum is no distribution. The map shows the last that holds a voxel.
    assert (probabilities.sum(-1) > 1.5).any()
    expected = np.select([found[..., 2], found[..., 1], found[..., 0]], [3, 2, 1], 0)
    np.testing.assert_array_equal(np.asarray(nib.load(out).dataobj), expected)


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    spec, _, run = trained
    out = tmp_path_factory.mktemp("scores")
    return spec, out, sf.evaluate(run.model, spec, "val", out=out, tolerance=1.0, calibration=True)


def test_each_region_is_scored_by_its_own_probability(evaluated):
    spec, out, scores = evaluated
    assert len(scores.cases) == 2
    for case in scores.cases:
        probabilities = nib.load(out / f"{case.case}.probabilities.nii.gz").dataobj
        values = np.asarray(nib.load(spec.path(spec.case(case.case).labels)).dataobj)
        for k, inside in enumerate(REGIONS.values()):
            known = values != 4
            truth = np.isin(values, inside)[known]
            found = np.asarray(probabilities)[known][:, k] > 0.5
            np.testing.assert_array_equal(case.matrix[k], confusion_matrix(truth, found))
            assert case.measures()["dice"][k] == pytest.approx(f1_score(truth, found))
            assert case.measures()["iou"][k] == pytest.approx(jaccard_score(truth, found))
            assert case.measures()["precision"][k] == pytest.approx(precision_score(truth, found))
            assert case.measures()["recall"][k] == pytest.approx(recall_score(truth, found))
            assert case.sizes()[0][k] == pytest.approx(truth.sum() / 1000)  # ml
            assert case.sizes()[1][k] == pytest.approx(found.sum() / 1000)
    total = sum(case.matrix for case in scores.cases)
    assert scores.accuracy == pytest.approx((total[:, 0, 0] + total[:, 1, 1]).sum() / total.sum())


@pytest.mark.filterwarnings("ignore:monai.metrics.utils:FutureWarning")
def test_distances_of_regions_are_those_of_monai(evaluated):
    metrics = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    spec, out, scores = evaluated
    measured = 0
    for case in scores.cases:
        probabilities = np.asarray(nib.load(out / f"{case.case}.probabilities.nii.gz").dataobj)
        values = np.asarray(nib.load(spec.path(spec.case(case.case).labels)).dataobj)
        if (values == 4).any():  # MONAI knows no pixel that is not scored
            continue
        truth = np.stack([np.isin(values, inside) for inside in REGIONS.values()])
        pair = [
            torch.tensor(one[None].astype("float32"))
            for one in (np.moveaxis(probabilities > 0.5, -1, 0), truth)
        ]
        hd95 = metrics.compute_hausdorff_distance(*pair, include_background=True, percentile=95)
        np.testing.assert_allclose(case.hd95, hd95[0].numpy(), rtol=1e-6)
        measured += np.isfinite(case.hd95).sum()
    assert measured >= 3


def test_a_report_of_regions_has_no_confusion_of_one_for_another(evaluated):
    spec, out, scores = evaluated
    page = (out / "scores.html").read_text()
    assert "Confusion matrix" not in page
    assert all(label.name in page for label in spec.classes)
    assert page.count('<figure class="view"') == 2
    assert "Regions overlap: where several hold a pixel, the last of them is shown" in page
    written = json.loads((out / "scores.json").read_text())
    assert np.shape(written["confusion"]) == (3, 2, 2)
    assert written["pixels"] == sum(case.matrix[0].sum() for case in scores.cases)
    assert written["classes"][2]["pixels"] == sum(case.matrix[2, 1].sum() for case in scores.cases)
    assert "calibration: left out" in written["notes"][0]
    rows = (out / "scores.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 3


def test_pictures_show_what_a_label_map_shows(evaluated):
    spec, out, scores = evaluated
    name = scores.cases[0].case
    with ExitStack() as stack:
        reader = next(r for r in open_regions(spec, "val", stack) if r.case.id == name)
        view = case_view(reader, out / f"{name}.nii.gz")
    plane = int(view.caption.split()[-1])
    none = {0: 3, 1: 0, 2: 1, 3: 2, 4: -1}  # the file's value to what is shown
    for path, shown in ((spec.path(spec.case(name).labels), view.reference),
                        (out / f"{name}.nii.gz", view.found)):  # fmt: skip
        values = np.asarray(nib.load(path).dataobj)[:, :, plane]
        expected = np.vectorize(none.get)(values)
        np.testing.assert_array_equal(shown, np.rot90(expected))
    assert (view.reference == 2).any()


def test_a_model_of_exclusive_classes_is_not_scored_on_regions(trained, tmp_path):
    spec, model, _ = trained
    card = model.card.model_copy(update={"task": "classes"})
    with pytest.raises(ModelError, match=r"the model's task is classes; spec .* has regions"):
        sf.evaluate(sf.FocalUNet(card=card, preset="nano"), spec, "val", out=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_the_default_loss_is_that_of_the_batch_and_leaves_out_what_is_unknown(trained):
    spec, model, run = trained
    plan = sf.load_plan(run.folder / "plan.yaml")
    with PatchSampler(spec, plan) as sampler:
        batches = [sampler.batch(number) for number in range(8)]
    assert any((labels < 0).any() for *_, labels in batches)
    values, valid, labels = next(batch for batch in batches if (batch[2] < 0).any())
    logits = keras.ops.convert_to_numpy(model({"image": values, "valid": valid}))
    loss = DiceBinaryCrossEntropy()
    cost = float(loss(labels, logits))
    known = labels >= 0
    np.testing.assert_allclose(
        float(loss(labels, np.where(known, logits, 1 - 5 * logits))), cost, rtol=1e-5
    )
    assert abs(float(loss(labels, np.where(known, 1 - 5 * logits, logits))) - cost) > 0.1


@pytest.mark.parametrize(
    "loss",
    [
        DiceCrossEntropy(),
        WeightedSum([DiceBinaryCrossEntropy(), Boundary()]),
        AtScale(DiceCrossEntropy(), 2),
    ],
)
def test_a_loss_for_exclusive_classes_is_refused(trained, tmp_path, loss):
    spec, model, run = trained
    plan = sf.load_plan(run.folder / "plan.yaml")
    with pytest.raises(ModelError, match=r"is for the task .*classes.*; expected one for regions"):
        sf.train(model, spec, plan, tmp_path / "run", loss=loss)
    assert not (tmp_path / "run").exists()
    assert tasks_of(keras.losses.CategoricalCrossentropy()) == set()


def test_a_model_of_exclusive_classes_is_refused(trained, tmp_path):
    spec, model, run = trained
    plan = sf.load_plan(run.folder / "plan.yaml")
    card = model.card.model_copy(update={"task": "classes"})
    with pytest.raises(ModelError, match="or another task"):
        sf.train(sf.FocalUNet(card=card, preset="nano"), spec, plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("space", [(2, 9, 11), (1, 5, 6, 7)])
def test_iou_of_regions_over_several_batches(space):
    rng = np.random.default_rng(0)
    metric = MeanRegionIoU(4)
    pairs = []
    for _ in range(3):
        labels = rng.integers(-1, 2, (*space, 4)).astype("int8")
        labels[..., 3] = np.minimum(labels[..., 3], 0)
        logits = rng.normal(0, 1, labels.shape).astype("float32") + labels
        logits[..., 3] = -1  # in neither: left out of the mean
        metric.update_state(labels, logits)
        pairs.append((labels, logits))
    labels, logits = (np.concatenate(parts).reshape(-1, 4) for parts in zip(*pairs, strict=True))
    expected = []
    for k in range(3):
        known = labels[:, k] >= 0
        expected.append(jaccard_score(labels[known, k] == 1, logits[known, k] > 0))
    assert float(metric.result()) == pytest.approx(np.mean(expected), rel=1e-6)
    again = MeanRegionIoU.from_config(metric.get_config())
    assert (again.num_classes, float(again.result())) == (4, 0)


def scenes_of_two_annotators(folder):
    """Scenes with the same two kinds of squares, of which each annotator drew one kind."""
    cases = []
    for name, drawn in (("a", 1), ("b", 2)):
        values = np.zeros((64, 64), "uint8")
        values[8:24, 8:56], values[40:56, 8:56] = 1, 2
        noise = np.random.default_rng(ord(name)).normal(0, 0.2, values.shape)
        for kind, array in (("image", values + noise), ("labels", values * (values == drawn))):
            with rasterio.open(
                folder / f"{name}_{kind}.tif", "w", driver="GTiff", count=1, height=64, width=64,
                dtype="float32" if kind == "image" else "uint8", crs="EPSG:32633",
                transform=Affine(10, 0, 0, 0, -10, 0),
            ) as out:  # fmt: skip
                out.write(array.astype(out.dtypes[0]), 1)
        cases.append(
            {"id": name, "image": f"{name}_image.tif", "labels": f"{name}_labels.tif",
             "annotated": ["rest", f"kind {drawn}"]}
        )  # fmt: skip
    document = {
        "name": "two", "ndim": 2, "channels": ["x"], "cases": cases,
        "classes": [{"value": k, "name": n} for k, n in enumerate(["rest", "kind 1", "kind 2"])],
        "splits": {"train": ["a", "b"]},
    }  # fmt: skip
    (folder / "spec.yaml").write_text(yaml.safe_dump(document))
    return sf.load_spec(folder / "spec.yaml")


def test_what_an_annotator_did_not_look_for_costs_nothing_to_find(tmp_path):
    spec = scenes_of_two_annotators(tmp_path)
    plan = sf.make_plan(spec, patch=(64, 64), batch_size=2, augmentation="none")
    with PatchSampler(spec, plan) as sampler:
        _, _, labels = sampler.batch(0)
    # Two certain answers: where nobody drew anything there is nothing, or what was not looked for.
    alone, other = labels.sum(-1) == 1, labels[..., 1:].argmax(-1) + 1
    answers = [np.where(alone, labels.argmax(-1), rest) for rest in (0, other)]
    assert (answers[0] != answers[1]).any()
    costs = [float(DiceCrossEntropy()(labels, 20.0 * np.eye(3)[one])) for one in answers]
    # Cross-entropy does not tell them apart, and the Dice of no class is lowered.
    assert costs == pytest.approx([costs[0]] * 2, abs=1e-4)
    assert costs[0] < 1e-3
    # With the labels as they stand in the files, what nobody drew is an error.
    plain = labels.argmax(-1)
    assert float(DiceCrossEntropy()(plain, 20.0 * np.eye(3)[answers[1]])) > 1


@pytest.mark.slow
def test_both_kinds_are_learned_from_two_annotators(tmp_path):
    spec = scenes_of_two_annotators(tmp_path)
    plan = sf.make_plan(
        spec, steps=60, patch=(64, 64), batch_size=4, augmentation="light", device="cpu"
    )
    run = sf.train(sf.FocalUNet.from_plan(spec, plan), spec, plan, tmp_path / "run")
    found = sf.predict_array(
        sf.load_model(run.model), rasterio.open(tmp_path / "a_image.tif").read(1)[..., None]
    )
    truth = np.zeros((64, 64), int)
    truth[8:24, 8:56], truth[40:56, 8:56] = 1, 2
    scores = jaccard_score(truth.ravel(), np.asarray(found).ravel(), average=None)
    assert (scores > 0.6).all(), scores
