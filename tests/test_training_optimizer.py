"""The default optimizer, and the lower learning rate of a trained encoder."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import segfocal as sf
from segfocal.demonstration import bundled_spec
from segfocal.errors import ModelError
from segfocal.training.network import fitted_network, step_optimizer
from segfocal.training.optimizer import SlowerAdamW


@pytest.fixture(scope="module")
def spec():
    return sf.load_spec(bundled_spec("nc_landcover.yaml"))


@pytest.fixture(scope="module")
def plan(spec):
    return sf.make_plan(spec, steps=2, patch=(32, 32), batch_size=1)


def test_it_is_adamw_with_parameter_groups():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    names = ("kernel", "kernel", "bias", "bias")
    starts = [rng.normal(size=(3, 2)).astype(np.float32) for _ in names]
    ours = [keras.Variable(start, name=name) for start, name in zip(starts, names, strict=True)]
    optimizer = SlowerAdamW([1, 3], 0.1, learning_rate=0.02, weight_decay=0.3)
    optimizer.build(ours)
    theirs = [torch.nn.Parameter(torch.tensor(start.copy())) for start in starts]
    groups = [
        {"params": [one], "lr": 0.002 if k in (1, 3) else 0.02,
         "weight_decay": 0.3 if k in (0, 1) else 0.0}
        for k, one in enumerate(theirs)
    ]  # fmt: skip
    reference = torch.optim.AdamW(groups, eps=1e-7)
    for _ in range(30):
        gradients = [rng.normal(size=start.shape).astype(np.float32) for start in starts]
        optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in gradients])
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = torch.tensor(gradient)
        reference.step()
    for k, (mine, other, start) in enumerate(zip(ours, theirs, starts, strict=True)):
        found, expected = np.asarray(mine), other.detach().numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert (np.abs(found - start).max() < 0.07) == (k in (1, 3))


def test_it_is_read_back_as_it_was_written():
    optimizer = SlowerAdamW([0, 4], 0.25, learning_rate=0.5, weight_decay=0.1)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert again.get_config() == optimizer.get_config()
    assert (again.slow, again.slow_rate) == ((0, 4), 0.25)


def test_the_slow_variables_are_those_of_the_encoder(spec, plan):
    model = sf.FocalUNet.from_plan(spec, plan)
    fitted = fitted_network(model, plan)
    optimizer = step_optimizer(fitted, model, plan, 0.1)
    slow = {id(fitted.trainable_variables[k]) for k in optimizer.slow}
    assert slow == {id(variable) for variable in model.encoder.trainable_variables}
    assert 0 < len(slow) < len(fitted.trainable_variables)
    assert type(step_optimizer(fitted, model, plan, 1.0)) is keras.optimizers.AdamW


def test_weights_of_another_network_are_refused(spec, plan, tmp_path):
    keras.utils.set_random_seed(1)
    sf.save_model(sf.FocalNet(5, preset="micro"), tmp_path / "encoder.keras")
    with pytest.raises(ModelError, match=r"the weights \(micro\) have embed_dim 48"):
        sf.train(
            sf.FocalUNet.from_plan(spec, plan), spec, plan, tmp_path / "run",
            encoder=tmp_path / "encoder.keras",
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_trained_encoder_is_where_training_starts(spec, plan, tmp_path):
    keras.utils.set_random_seed(1)
    encoder = sf.FocalNet(5, preset="nano")
    sf.save_model(encoder, tmp_path / "encoder.keras")
    model = sf.FocalUNet.from_plan(spec, plan)
    run = sf.train(model, spec, plan, tmp_path / "run", encoder=tmp_path / "encoder.keras")
    trained = sf.load_model(run.model).encoder
    moved = [
        np.abs(np.asarray(now) - np.asarray(then)).max()
        for now, then in zip(trained.trainable_weights, encoder.trainable_weights, strict=True)
    ]
    # At most two steps of a tenth of the rate, of which Adam's steps have about the size.
    assert 0 < max(moved) < 2.5 * 0.1 * plan.learning_rate
