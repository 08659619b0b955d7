"""Ensembles and test-time augmentation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import segfocal as sf
from segfocal.card import Card, Channel, LabelClass
from segfocal.engine.averaging import AugmentedPredictor, EnsemblePredictor
from segfocal.engine.job import prepare
from segfocal.engine.predictors import as_predictor
from segfocal.errors import GeometryError, ModelError
from segfocal.io import MemoryScan

RNG = np.random.default_rng(5)


def card(mean=0.0, names=("a", "b"), values=(0, 1, 2), ndim=2, **more):
    return Card(
        ndim=ndim,
        channels=tuple(Channel(name=name, mean=mean) for name in names),
        classes=tuple(LabelClass(value=v, name=f"c{v}", color=(v, 0, 0)) for v in values),
        orientation="RAS" if ndim == 3 else None,
        **more,
    )


class Fake:
    """Not symmetric: each pixel sees its neighbours after it, by a table of weights."""

    output_stride = 1
    engine = "fake"
    batch_matters = False

    def __init__(self, its_card, seed=0, name="fake"):
        self.card, self.ndim, self.hash = its_card, its_card.ndim, f"{name}{seed}"
        rng = np.random.default_rng(seed)
        self.mix = rng.normal(size=(its_card.ndim + 1, len(its_card.channels), 3))

    def __call__(self, values, valid):
        usable = np.where(valid[..., None], values, 0)
        total = usable @ self.mix[0]
        for axis in range(self.ndim):
            total = total + np.roll(usable, -1, axis + 1) @ self.mix[axis + 1]
        expd = np.exp(total - total.max(-1, keepdims=True))
        return (expd / expd.sum(-1, keepdims=True)).astype(np.float32)


def probabilities(model, array, **options):
    with MemoryScan(array) as scan:
        out = np.empty((*scan.shape, 3), np.float32)
        for window, part in sf.stream(model, scan, **options):
            out[window] = part
    return out


def test_an_ensemble_is_the_mean_of_its_members_on_a_whole_scan():
    array = RNG.normal(size=(50, 70, 2)).astype(np.float32)
    members = [Fake(card(), seed) for seed in range(3)]
    tiling = {"tile": 24, "overlap": 8}
    alone = [probabilities(member, array, **tiling) for member in members]
    found = probabilities(members, array, **tiling)
    np.testing.assert_allclose(found, np.mean(alone, 0), atol=2e-6)
    assert (found.argmax(-1) != alone[0].argmax(-1)).any()


def test_each_member_fills_what_is_not_valid_with_its_own_mean():
    seen = []

    class Recording(Fake):
        def __call__(self, values, valid):
            seen.append(values.copy())
            return super().__call__(values, valid)

    array = RNG.normal(size=(8, 8, 2)).astype(np.float32)
    array[2, 3, 1] = np.nan
    members = [Recording(card(mean, valid_when="any")) for mean in (5.0, -7.0)]
    probabilities(members, array, tile=8, overlap=0, batch_size=1)
    assert seen[0][0, 2, 3, 1] == 5
    assert seen[1][0, 2, 3, 1] == -7
    assert all(np.isfinite(values).all() for values in seen)


def test_an_ensemble_has_an_identity_of_its_own():
    a, b = Fake(card(), 1), Fake(card(), 2)
    both, turned = as_predictor([a, b]), as_predictor((b, a))
    assert len({a.hash, both.hash, turned.hash}) == 3
    assert both.hash == as_predictor([Fake(card(), 1), Fake(card(), 2)]).hash
    assert not both.batch_matters
    b.batch_matters = True
    assert both.batch_matters
    b.hash = None
    assert both.hash is None


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (card(names=("a", "c")), "channels"),
        (card(values=(0, 1, 3)), "classes"),
        (card(valid_when="any"), "valid_when"),
        (card(ndim=3), "axes"),
    ],
)
def test_models_that_do_not_agree_are_refused(other, what):
    with pytest.raises(ModelError, match=f"model 2 of the ensemble differs in {what}"):
        EnsemblePredictor([Fake(card()), Fake(other)])


def test_what_cannot_be_a_member_is_refused():
    with pytest.raises(ModelError, match="at least one"):
        as_predictor([])
    with pytest.raises(ModelError, match="model 2 of the ensemble is a plain function"):
        as_predictor([Fake(card()), lambda batch: batch])
    frozen = Fake(card())
    frozen.global_context = "frozen"
    with pytest.raises(ModelError, match="frozen context"):
        as_predictor([frozen])


def oracle(predictor, values, valid, tta):
    """The mean over all turned versions of one tile, written the slow way."""
    found = []
    ndim = values.ndim - 1
    for swap in (False, True) if tta == "rotations" else (False,):
        for flips in itertools.product((1, -1), repeat=ndim):
            steps = tuple(slice(None, None, step) for step in flips)
            order = [1, 0, *range(2, ndim)] if swap else list(range(ndim))
            turned = values.transpose(*order, ndim)[steps]
            its = valid.transpose(*order)[steps]
            back = predictor(turned[None], its[None])[0]
            found.append(back[steps].transpose(*order, ndim))
    return np.mean(found, 0)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("tta", ["flips", "rotations"])
def test_augmentation_is_the_mean_over_turned_tiles(ndim, tta):
    tile = (6, 6, 5)[:ndim]
    predictor = Fake(card(ndim=ndim), 4)
    values = RNG.normal(size=(3, *tile, 2)).astype(np.float32)
    valid = RNG.random((3, *tile)) < 0.8
    found = AugmentedPredictor(predictor, tta, tile)(values, valid)
    for place in range(3):
        expected = oracle(predictor, values[place], valid[place], tta)
        np.testing.assert_allclose(found[place], expected, atol=1e-6)
    assert np.abs(found - predictor(values, valid)).max() > 0.01


@pytest.mark.parametrize("tta", ["flips", "rotations"])
def test_an_augmented_prediction_turns_with_its_scan(tta):
    array = RNG.normal(size=(16, 16, 2)).astype(np.float32)
    options = {"tile": 16, "overlap": 0, "tta": tta}
    found = probabilities(Fake(card(), 8), array, **options)
    flipped = probabilities(Fake(card(), 8), array[::-1].copy(), **options)
    np.testing.assert_allclose(flipped[::-1], found, atol=1e-6)
    rotated = probabilities(Fake(card(), 8), np.rot90(array).copy(), **options)
    same = np.abs(np.rot90(rotated, -1) - found).max() < 1e-6
    assert same == (tta == "rotations")


def test_augmentation_is_a_parameter_of_the_run_and_not_of_the_model():
    predictor = Fake(card())
    with MemoryScan(RNG.normal(size=(20, 20, 2))) as scan:
        job = prepare(
            AugmentedPredictor(predictor, "flips", (8, 8)),
            scan,
            tile=8,
            overlap=0,
            halo=0,
            blend="constant",
            batch_size=1,
        )
        assert job.parameters["tta"] == "flips"
        assert job.predictor.hash == predictor.hash


def test_augmentation_that_cannot_be_done_is_refused():
    with pytest.raises(GeometryError, match="as wide as high, found 8 x 6"):
        AugmentedPredictor(Fake(card()), "rotations", (8, 6))
    with pytest.raises(GeometryError, match="expected flips or rotations"):
        AugmentedPredictor(Fake(card()), "mirror", (8, 8))
