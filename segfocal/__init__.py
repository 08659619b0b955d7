"""segfocal: segment scans too large for memory.

>>> import segfocal as sf
>>> model = sf.load_model("runs/landcover/model.keras")
>>> sf.predict(model, "scene.tif", "labels.tif")

Names are loaded when they are first used: importing segfocal loads no TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from segfocal.quiet import load_keras
from segfocal.version import __version__

if TYPE_CHECKING:
    from segfocal.card import Card as Card
    from segfocal.clusters import predict_on_cluster as predict_on_cluster
    from segfocal.conversion import convert_weights as convert_weights
    from segfocal.cross_validation import cross_validate as cross_validate
    from segfocal.data.plan import Plan as Plan
    from segfocal.data.plan import load_plan as load_plan
    from segfocal.data.plan import save_plan as save_plan
    from segfocal.data.spec import DatasetSpec as DatasetSpec
    from segfocal.data.spec import load_spec as load_spec
    from segfocal.demonstration import run_demo as run_demo
    from segfocal.engine.contexts import calibrate as calibrate
    from segfocal.engine.predictors import load_model as load_model
    from segfocal.errors import SegfocalError as SegfocalError
    from segfocal.evaluation import evaluate as evaluate
    from segfocal.exporting import export as export
    from segfocal.inspection import inspect as inspect
    from segfocal.io import MemoryScan as MemoryScan
    from segfocal.io import open_scan as open_scan
    from segfocal.io.network import forbid_network as forbid_network
    from segfocal.many_scans import predict_many as predict_many
    from segfocal.models import FocalNet as FocalNet
    from segfocal.models import FocalUNet as FocalUNet
    from segfocal.planning import make_plan as make_plan
    from segfocal.prediction import predict as predict
    from segfocal.prediction import predict_array as predict_array
    from segfocal.prediction import stream as stream
    from segfocal.quantizing import quantize as quantize
    from segfocal.scan_parts import assemble as assemble
    from segfocal.scan_parts import predict_part as predict_part
    from segfocal.spec_check import check_spec as check_spec
    from segfocal.spec_drafts import draft_spec as draft_spec
    from segfocal.spec_drafts import import_spec as import_spec
    from segfocal.speeds import measure_speed as measure_speed
    from segfocal.training import save_model as save_model
    from segfocal.training import train as train
    from segfocal.weights import from_pretrained as from_pretrained
    from segfocal.weights import load_encoder as load_encoder

_HOME = {
    "Card": "segfocal.card",
    "DatasetSpec": "segfocal.data.spec",
    "FocalNet": "segfocal.models",
    "FocalUNet": "segfocal.models",
    "MemoryScan": "segfocal.io",
    "Plan": "segfocal.data.plan",
    "SegfocalError": "segfocal.errors",
    "assemble": "segfocal.scan_parts",
    "calibrate": "segfocal.engine.contexts",
    "check_spec": "segfocal.spec_check",
    "convert_weights": "segfocal.conversion",
    "cross_validate": "segfocal.cross_validation",
    "draft_spec": "segfocal.spec_drafts",
    "evaluate": "segfocal.evaluation",
    "export": "segfocal.exporting",
    "forbid_network": "segfocal.io.network",
    "from_pretrained": "segfocal.weights",
    "import_spec": "segfocal.spec_drafts",
    "load_encoder": "segfocal.weights",
    "load_model": "segfocal.engine.predictors",
    "load_plan": "segfocal.data.plan",
    "load_spec": "segfocal.data.spec",
    "make_plan": "segfocal.planning",
    "measure_speed": "segfocal.speeds",
    "open_scan": "segfocal.io",
    "inspect": "segfocal.inspection",
    "predict": "segfocal.prediction",
    "predict_array": "segfocal.prediction",
    "predict_many": "segfocal.many_scans",
    "predict_on_cluster": "segfocal.clusters",
    "predict_part": "segfocal.scan_parts",
    "quantize": "segfocal.quantizing",
    "run_demo": "segfocal.demonstration",
    "save_model": "segfocal.training",
    "save_plan": "segfocal.data.plan",
    "stream": "segfocal.prediction",
    "train": "segfocal.training",
}

_WITH_KERAS = {
    "FocalNet",
    "FocalUNet",
    "convert_weights",
    "cross_validate",
    "evaluate",
    "from_pretrained",
    "load_encoder",
    "run_demo",
    "save_model",
    "train",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'segfocal' has no attribute {name!r}")
    if name in _WITH_KERAS:
        load_keras()
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
