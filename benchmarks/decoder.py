"""The light decoder against a heavy one.

    python benchmarks/decoder.py

Trains FocalUNet nano on the west half of North Carolina as the demo does, with the decoder it
has and with a heavy one around the same encoder, and with the three kinds of upsampling, and
scores each on the east half by tiled inference, for several seeds. Counts the work of both
decoders on a 512 x 512 tile for tiny_srf. Writes ``benchmarks/decoder.md``.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor, ops
from sample_models import Job
from tables import Results, parse, spread, table, write_tables

import segfocal as sf
from segfocal.card import Card
from segfocal.layers import CropLike, Double, PadToMultiple, Standardize, exact_gelu
from segfocal.models import FocalNet
from segfocal.models.cost import multiply_accumulates
from segfocal.presets import level_widths

STRIDE, SIDE = 32, 512


def heavy_unet(card: Card, preset: str) -> keras.Model:
    """Return a U-Net with a heavy decoder around a FocalNet, for images.

    Levels are those of the light decoder, at twice its widths. Each concatenates what comes up
    with the skip and applies two 3x3 convolutions, each with normalisation over channels; the
    skips at full and half resolution are two such convolutions each.
    """
    inputs = {
        "image": keras.Input((None, None, len(card.channels)), name="image"),
        "valid": keras.Input((None, None), dtype="bool", name="valid"),
    }
    pad = PadToMultiple((STRIDE, STRIDE), dtype="float32", name="pad")
    usable = pad(ops.cast(ops.expand_dims(inputs["valid"], -1), "float32")) > 0.5
    image = Standardize(
        tuple(channel.mean for channel in card.channels),
        tuple(channel.std for channel in card.channels),
        name="standardize",
    )(pad(inputs["image"]), usable)
    encoder = FocalNet(in_channels=len(card.channels), preset=preset, name="encoder")
    features = encoder({"image": image, "valid": ops.squeeze(usable, -1)})
    widths = {level: 2 * width for level, width in level_widths(encoder.embed_dim).items()}

    def convolutions(x: KerasTensor, level: str, name: str, stride: int = 1) -> KerasTensor:
        for number, step in ((1, stride), (2, 1)):
            conv = f"{name}_{level}_{number}"
            x = keras.layers.Conv2D(widths[level], 3, strides=step, padding="same", name=conv)(x)
            x = keras.layers.LayerNormalization(epsilon=1e-5, name=f"{conv}_norm")(x)
            x = exact_gelu(x)
        return x

    skips = {"p0": convolutions(image, "p0", "stem")}
    skips["p1"] = convolutions(skips["p0"], "p1", "stem", stride=2)
    for level in ("p2", "p3", "p4", "p5"):
        norm = keras.layers.LayerNormalization(epsilon=1e-5, name=f"skip_{level}_norm")
        skips[level] = norm(features[level.upper()])
    x = skips["p5"]
    for level in widths:
        x = Double("nearest", name=f"double_{level}")(x)
        x = convolutions(ops.concatenate([x, skips[level]], axis=-1), level, "decoder")
    logits = keras.layers.Dense(card.num_classes, dtype="float32", name="logits")(x)
    model = keras.Model(
        inputs, CropLike(dtype="float32", name="crop")(logits, inputs["image"]), name="heavy_unet"
    )
    # What training and inference ask of a model.
    model.card = card
    model.output_stride = STRIDE
    return model


def heavy_work(model: keras.Model, side: int) -> int:
    """Return the MACs of a heavy model's decoder: entries of kernels times positions."""
    work = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            level = layer.name.split("_p")[1][0] if "_p" in layer.name else "0"
            work += math.prod(layer.kernel.shape) * (side // 2 ** int(level)) ** 2
    return work


def light(upsampling: Any) -> Any:
    """Return how a FocalUNet with some upsampling is built for a plan."""
    return lambda plan: sf.FocalUNet(card=plan.card, preset=plan.preset, upsampling=upsampling)


NETWORKS = {
    "tile": ("light, nearest (as it is)", light("nearest")),
    "heavy": ("heavy", lambda plan: heavy_unet(plan.card, plan.preset)),
    "linear": ("light, linear", light("linear")),
    "transposed": ("light, transposed", light("transposed")),
}
"""By the names under which they are kept: titles, and how to build them."""


def work_table() -> str:
    """Return the work and size of the decoders around tiny_srf."""
    card = Card.generic(ndim=2, in_channels=3, num_classes=7)
    rows = []
    for upsampling in ("nearest", "transposed"):
        model = sf.FocalUNet(card=card, preset="tiny_srf", upsampling=upsampling)
        work = multiply_accumulates(model, (SIDE, SIDE))
        rows.append((f"light, {upsampling}", work["encoder"], work["decoder"], model))
    heavy = heavy_unet(card, "tiny_srf")
    rows.append(("heavy", rows[0][1], heavy_work(heavy, SIDE), heavy))
    return table(
        ["tiny_srf", "encoder GMAC", "decoder GMAC", "sum", "parameters of the decoder"],
        [
            [
                name,
                f"{encoder / 1e9:.3f}",
                f"{decoder / 1e9:.3f}",
                f"{(encoder + decoder) / 1e9:.3f}",
                f"{(model.count_params() - model.get_layer('encoder').count_params()) / 1e6:.2f} M",
            ]
            for name, encoder, decoder, model in rows
        ],
    )


def score(job: Job, network: str, results: Results) -> None:
    """Train a network and score it on the held-out part, unless that was done."""
    name = f"{job.key} {network}"
    if name in results:
        return
    model = job.trained(network, NETWORKS[network][1])
    with tempfile.TemporaryDirectory() as out:
        found = sf.evaluate(model, job.spec, "test", out=out)
    results[name] = {
        "accuracy": found.accuracy,
        "mean_iou": found.mean_iou,
        "parameters": model.count_params(),
    }


def accuracy_table(jobs: Sequence[Job], results: Results) -> str:
    """Return the scores of the networks that were trained."""
    rows = []
    for network, (title, _) in NETWORKS.items():
        names = [f"{job.key} {network}" for job in jobs]
        found = [results[name] for name in names if name in results]
        if found:
            scores = [spread([one[what] for one in found]) for what in ("accuracy", "mean_iou")]
            each = " ".join(f"{one['accuracy']:.3f}/{one['mean_iou']:.3f}" for one in found)
            size = f"{found[0]['parameters']:,}"
            rows.append([title, size, str(len(found)), *scores, each])
    return table(
        ["decoder", "parameters", "seeds", "accuracy", "mean IoU", "by seed: accuracy/mean IoU"],
        rows,
    )


def main() -> None:
    options = parse(__file__, __doc__)
    results = Results(options.work / "decoder.json")
    jobs = [Job("scene", seed, options.work / "models", options.steps) for seed in options.seeds]
    for network in NETWORKS:
        for job in jobs:
            score(job, network, results)
    parts = [
        "FocalUNet nano, North Carolina, east half:",
        accuracy_table(jobs, results),
        f"Work on a tile of {SIDE} × {SIDE} pixels:",
        work_table(),
    ]
    write_tables(options.out, "The decoder", "decoder.py", parts)


if __name__ == "__main__":
    main()
