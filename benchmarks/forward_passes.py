"""What runs tiles in the benchmarks of networks: ours in each engine, peers, matrix products.

A setting is ``{"folder", "tile", "batch", "channels", "classes"}``. The folder holds our model
as :func:`write_models` leaves it there. One turn runs one batch of normal noise.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peer_networks import MONAI, U_NET, keras_unet, monai_network
from turns import Entry, Ready, serve_if_asked

__all__ = ["ENTRIES", "MATRIX", "OURS", "PEERS", "PRODUCTS", "write_models"]

MATRIX = 2048
"""Sides of the matrices whose product is timed."""

FOCAL_IN_TORCH = "the same in plain PyTorch"

_REPEAT = 5
"""Products in one turn."""


def predictor(name: str) -> Callable[[dict[str, Any]], Ready]:
    """Return what makes our model from a file run a batch, as `segfocal predict` runs it."""

    def make(setting: dict[str, Any]) -> Ready:
        from segfocal.engine.predictors import as_predictor

        run = as_predictor(Path(setting["folder"]) / name)
        shape = (setting["batch"], *setting["tile"])
        values, valid = noise(setting), np.ones(shape, bool)
        return Ready(lambda: run(values, valid), pieces=setting["batch"])

    return make


def monai_in_torch(name: str) -> Callable[[dict[str, Any]], Ready]:
    """Return what makes a network of MONAI run a batch in PyTorch."""

    def make(setting: dict[str, Any]) -> Ready:
        import torch

        network = monai_network(name, setting["tile"], setting["channels"], setting["classes"])
        network.eval()
        image = torch.from_numpy(np.moveaxis(noise(setting), -1, 1).copy())

        def run() -> None:
            with torch.inference_mode():
                network(image).softmax(1)

        parameters = sum(weight.numel() for weight in network.parameters())
        return Ready(run, parameters, setting["batch"])

    return make


def focal_in_torch(setting: dict[str, Any]) -> Ready:
    """Our network written in PyTorch, with the same weights."""
    import torch
    from torch_focal_unet import TorchFocalUNet

    with np.load(Path(setting["folder"]) / "weights.npz") as weights:
        network = TorchFocalUNet(weights, len(setting["tile"])).eval()
    image = torch.from_numpy(noise(setting))

    def run() -> None:
        with torch.inference_mode():
            network(image).softmax(-1)

    return Ready(run, pieces=setting["batch"])


def dynunet_in_openvino(setting: dict[str, Any]) -> Ready:
    """MONAI's DynUNet converted from PyTorch, run like ours: two tiles side by side."""
    import torch

    from segfocal.engine.openvino_predictor import load_openvino

    openvino = load_openvino()
    network = monai_network("DynUNet", setting["tile"], setting["channels"], setting["classes"])
    whole = torch.nn.Sequential(network, torch.nn.Softmax(1)).eval()
    image = np.moveaxis(noise(setting), -1, 1).copy()
    model = openvino.convert_model(whole, example_input=torch.from_numpy(image[:1]))
    model.reshape([1, *image.shape[1:]])
    options = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 2}
    compiled = openvino.Core().compile_model(model, "CPU", options)
    requests = [compiled.create_infer_request() for _ in range(2)]

    def run() -> None:
        for start in range(0, len(image), 2):
            running = list(zip(requests, range(start, len(image)), strict=False))
            for request, place in running:
                request.start_async([image[place : place + 1]], share_inputs=True)
            for request, _ in running:
                request.wait()

    parameters = sum(weight.numel() for weight in network.parameters())
    return Ready(run, parameters, setting["batch"])


def unet_in_tensorflow(setting: dict[str, Any]) -> Ready:
    from segfocal.quiet import load_keras

    load_keras()
    import keras

    network = keras_unet(setting["tile"], setting["channels"], setting["classes"])
    network = keras.Model(network.input, keras.layers.Softmax()(network.output))
    values = noise(setting)
    return Ready(lambda: network.predict_on_batch(values), network.count_params(), setting["batch"])


def product_in_numpy(setting: dict[str, Any]) -> Ready:
    a = np.random.default_rng(0).normal(size=(MATRIX, MATRIX)).astype(np.float32)
    return Ready(lambda: [a @ a for _ in range(_REPEAT)], pieces=_REPEAT)


def product_in_torch(setting: dict[str, Any]) -> Ready:
    import torch

    a = torch.randn(MATRIX, MATRIX)
    return Ready(lambda: [a @ a for _ in range(_REPEAT)], pieces=_REPEAT)


def product_in_tensorflow(setting: dict[str, Any]) -> Ready:
    import tensorflow as tf

    a = tf.random.normal((MATRIX, MATRIX))
    return Ready(lambda: [(a @ a).numpy()[0, 0] for _ in range(_REPEAT)], pieces=_REPEAT)


def noise(setting: dict[str, Any]) -> np.ndarray:
    shape = (setting["batch"], *setting["tile"], setting["channels"])
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


OURS = {
    "FocalUNet, OpenVINO float32": Entry(predictor("model.xml"), ("openvino",)),
    "FocalUNet, OpenVINO int8": Entry(predictor("int8.xml"), ("openvino", "nncf")),
    "FocalUNet, ONNX Runtime": Entry(predictor("model.onnx"), ("onnxruntime", "tf2onnx")),
    "FocalUNet, TensorFlow": Entry(predictor("model.keras")),
    "FocalUNet, Keras on PyTorch": Entry(predictor("model.keras"), ("torch",), backend="torch"),
}
PEERS = {
    FOCAL_IN_TORCH: Entry(focal_in_torch, ("torch",)),
    U_NET: Entry(unet_in_tensorflow),
    **{f"MONAI {name}": Entry(monai_in_torch(name), needs) for name, needs in MONAI.items()},
    "MONAI DynUNet, OpenVINO float32": Entry(dynunet_in_openvino, (*MONAI["DynUNet"], "openvino")),
}
PRODUCTS = {
    "matrix product, numpy": Entry(product_in_numpy),
    "matrix product, TensorFlow": Entry(product_in_tensorflow),
    "matrix product, PyTorch": Entry(product_in_torch, ("torch",)),
}
ENTRIES = {**OURS, **PEERS, **PRODUCTS}


def write_models(setting: dict[str, Any], preset: str) -> tuple[int, dict[str, int]]:
    """Write our model in all formats; return its parameters and the MACs of a tile by part.

    Weights are random, and the int8 model is calibrated on noise: that makes no difference to
    the time, and says nothing about what it loses.
    """
    import segfocal as sf
    from segfocal.models.cost import multiply_accumulates

    folder, tile = Path(setting["folder"]), tuple(setting["tile"])
    model = sf.FocalUNet(setting["classes"], setting["channels"], preset, ndim=len(tile))
    model.save(folder / "model.keras")
    np.savez(folder / "weights.npz", **{one.path: one.numpy() for one in model.weights})
    for name, package in (("model.xml", "openvino"), ("model.onnx", "tf2onnx")):
        if importlib.util.find_spec(package) is not None:
            print(f"exporting {name}", flush=True)
            sf.export(model, folder / name)
    if importlib.util.find_spec("nncf") is not None:
        print("quantizing", flush=True)
        scan = write_noise(folder, tile, setting["channels"])
        sf.quantize(folder / "model.xml", scan, folder / "int8.xml", tiles=4, tile=tile)
    return model.count_params(), multiply_accumulates(model, tile)


def write_noise(folder: Path, tile: tuple[int, ...], channels: int) -> Path:
    """Write a scan of noise, twice as long as a tile along each axis."""
    sides = tuple(2 * side for side in tile)
    values = np.random.default_rng(0).normal(size=(channels, *sides)).astype(np.float32)
    if len(tile) == 2:
        import rasterio

        path = folder / "noise.tif"
        with rasterio.open(
            path, "w", driver="GTiff", width=sides[1], height=sides[0], count=channels,
            dtype="float32", crs="EPSG:32633", transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
        ) as scene:  # fmt: skip
            scene.write(values)
        return path
    import nibabel as nib

    path = folder / "noise.nii"
    nib.save(nib.Nifti1Image(np.moveaxis(values, 0, -1).squeeze(-1), np.eye(4)), path)
    return path


if __name__ == "__main__":
    serve_if_asked(ENTRIES)
