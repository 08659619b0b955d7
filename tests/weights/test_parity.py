"""The networks equal those of timm, transformers and the original code, as recorded."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from recorded import PARITY, Recorded
from seeded import seeded_image

from segfocal.weights import from_pretrained, read_encoder

TOLERANCE = 1e-4


@pytest.fixture(params=sorted(PARITY.glob("*.npz")), ids=lambda path: path.stem)
def recorded(request):
    return Recorded(request.param)


def features_of(classifier):
    """Return a model of the four features that a classifier computes on its way."""
    depths = classifier.get_config()["depths"]
    features = {
        f"P{stage + 1}": classifier.get_layer(f"stage{stage}_block{depth}").output
        for stage, depth in enumerate(depths, start=1)
    }
    model = keras.Model(classifier.inputs, features)
    return lambda image: model([image, np.ones(image.shape[:-1], bool)])


def largest_difference(found, expected):
    assert found.shape == expected.shape
    return float(np.abs(np.asarray(found) - expected).max())


def test_every_feature_and_the_logits_are_the_peers(recorded, tmp_path):
    path = recorded.save(tmp_path)
    classifier = from_pretrained(path, num_classes=7)
    # One deep network is slow enough to build.
    deep = recorded.variant[:4] != "tiny"
    encoder = features_of(classifier) if deep else from_pretrained(path)
    for size in recorded.sizes:
        expected = recorded.expected(size)
        assert set(expected) == {"P2", "P3", "P4", "P5", "logits"}
        image = seeded_image(*size)
        found = {**encoder(image), "logits": classifier(image)}
        for name, array in expected.items():
            assert np.abs(array).max() > 0.5  # far from nothing
            assert largest_difference(found[name], array) <= TOLERANCE, (size, name)


def test_source_and_options_are_recognised(recorded, tmp_path):
    weights = read_encoder(recorded.save(tmp_path))
    architecture = weights.architecture
    assert weights.source == recorded.source
    large = recorded.variant[:4] in ("larg", "huge")
    assert architecture.embed_dim == 8
    assert architecture.depths == ((2, 2, 6, 2) if "tiny" in recorded.variant else (2, 2, 18, 2))
    assert architecture.focal_levels == (2 if "srf" in recorded.variant else 3)
    assert architecture.focal_window == (5 if recorded.variant == "large_fl3" else 3)
    assert architecture.conv_stem == architecture.use_postln == large
    assert bool(architecture.layerscale) == large
    assert architecture.use_postln_in_modulation == (recorded.variant == "huge_fl3")
    assert (architecture.in_channels, architecture.num_classes) == (3, 7)
    assert weights.num_parameters == sum(array.size for array in recorded.tensors.values())


@pytest.mark.parametrize("option", ["use_postln", "normalize_modulator"])
def test_an_option_that_is_said_wrongly_shows_in_the_features(tmp_path, option):
    recorded = Recorded(PARITY / "original_huge_fl3.npz")
    path = recorded.save(tmp_path)
    weights = read_encoder(path)
    assert any(option in note for note in weights.notes)
    wrong = not getattr(weights.architecture, option)
    encoder = from_pretrained(path, **{option: wrong})
    size = recorded.sizes[0]
    found = encoder(seeded_image(*size))["P2"]
    assert largest_difference(found, recorded.expected(size)["P2"]) > 1e-2


def test_the_config_beside_transformers_weights_decides(tmp_path):
    recorded = Recorded(PARITY / "transformers_tiny_lrf.npz")
    assert recorded.config["normalize_modulator"] is True
    weights = read_encoder(recorded.save(tmp_path))
    assert weights.architecture.normalize_modulator
    assert weights.notes == ()
