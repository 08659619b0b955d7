"""Model files that hold code or classes of somebody else."""

from __future__ import annotations

import json
import zipfile

import keras
import pytest

import segfocal as sf
from segfocal.errors import ModelError


def model_around(layer):
    """A FocalUNet whose encoder has a layer in its middle."""
    x = inputs = keras.Input((None, None, 3))
    features = {}
    for name, step in (("P2", 4), ("P3", 2), ("P4", 2), ("P5", 2)):
        x = keras.layers.Conv2D(8, step, step)(x)
        x = layer(x) if name == "P3" else x
        features[name] = x
    card = sf.Card.generic(ndim=2, in_channels=3, num_classes=3)
    return sf.FocalUNet(card=card, encoder=keras.Model(inputs, features))


class Foreign(keras.layers.Layer):
    def call(self, inputs):
        return inputs


@keras.saving.register_keras_serializable(package="somebody")
class Registered(keras.layers.Layer):
    def call(self, inputs):
        return inputs


def changed(path, change):
    """Write a model file again with another config."""
    target = path.with_name(f"changed-{path.name}")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            content = source.read(name)
            copy.writestr(name, change(content.decode()) if name == "config.json" else content)
    return target


def test_a_lambda_is_refused(tmp_path):
    sf.save_model(model_around(keras.layers.Lambda(lambda x: x)), tmp_path / "code.keras")
    with pytest.raises(ModelError, match=r"holds code .*which is not run"):
        sf.load_model(tmp_path / "code.keras")


def test_a_class_that_nobody_registered_is_refused(tmp_path):
    sf.save_model(model_around(Foreign()), tmp_path / "foreign.keras")
    with pytest.raises(ModelError, match="Foreign, which is neither of keras nor of segfocal"):
        sf.load_model(tmp_path / "foreign.keras")


def test_a_registered_layer_is_let_through_and_no_module_is_imported(tmp_path, monkeypatch):
    path = tmp_path / "mine.keras"
    sf.save_model(model_around(Registered()), path)
    sf.load_model(path)
    (tmp_path / "harmful.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path)

    def harm(text):
        assert "somebody>Registered" in text
        config = json.loads(text.replace("somebody>Registered", "nobody>Registered"))

        def walk(value):
            if isinstance(value, dict):
                if value.get("registered_name") == "nobody>Registered":
                    value["module"] = "harmful"
                for part in value.values():
                    walk(part)
            elif isinstance(value, list):
                for part in value:
                    walk(part)

        walk(config)
        return json.dumps(config)

    with pytest.raises(ModelError, match=r"harmful\.Registered"):
        sf.load_model(changed(path, harm))
