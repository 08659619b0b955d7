"""MONAI's DynUNet on a split of a spec, trained as segfocal trains, for comparison.

    python benchmarks/dynunet.py --data ../shared/data/med_msd_hippocampus --max-minutes 90

The spec is `accuracy_specs/hippocampus.yaml` unless --spec names another one of volumes. Same split
and patches (segfocal's own sampler and the plan's augmentation, as accuracy.py has them), same loss
(segfocal's Dice and cross-entropy, on Keras's PyTorch backend), AdamW with averaged weights. As the
number of steps in a given time is not known beforehand, the learning rate follows the share of the
time that has passed: the peer's schedule always ends. Whole scans are predicted through the same
tiled inference, written as NIfTI and scored by `segfocal.evaluate`. No TensorFlow is loaded. Needs
`pip install 'segfocal[peers]'`. Prints one JSON document.
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import math
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
MISSING = [name for name in ("torch", "monai") if importlib.util.find_spec(name) is None]
PATCH, BATCH = (32, 48, 32), 4
TILES = (48, 64, 48), PATCH
"""All of a volume at once, as in accuracy.py, and what the network saw in training."""
MIRROR_AXES = (0,)
"""As in accuracy.py: flipped from front to back, anterior would look like posterior."""

WARM_UP = 0.05
"""Share of the time."""
LEARNING_RATE, WEIGHT_DECAY, CLIP = 1e-3, 0.02, 1.0
AVERAGED = 0.99
"""Momentum of the averaged weights, once there are enough steps for it."""
EPOCH = 100_000
"""Numbers of batches that the sampler counts as one epoch: more than any run has."""


def network(channels, classes):
    """Return the DynUNet: three levels down, 32 to 256 channels, 5.6 million parameters."""
    from monai.networks.nets import DynUNet

    return DynUNet(
        spatial_dims=3, in_channels=channels, out_channels=classes,
        kernel_size=[3] * 4, strides=[1, 2, 2, 2], upsample_kernel_size=[2] * 3,
    )  # fmt: skip


class Standardized:
    """Brings values to mean 0 and deviation 1, as the first layer of a FocalUNet does."""

    def __init__(self, card, device):
        import numpy as np

        self.mean = np.array([channel.mean for channel in card.channels], np.float32)
        self.std = np.array([channel.std for channel in card.channels], np.float32)
        self.device = device

    def __call__(self, values, valid):
        import numpy as np
        import torch

        scaled = np.where(valid[..., None], (values - self.mean) / self.std, np.float32(0))
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(scaled, -1, 1))).to(self.device)


class Peer:
    """The trained network as what `segfocal.predict` runs tiles through."""

    ndim, output_stride, batch_matters = 3, 8, True

    def __init__(self, net, card, inputs, name):
        import torch

        self.card, self.hash = card, name
        self.engine = f"torch {torch.__version__} float32"
        self._net, self._inputs = net, inputs

    def __call__(self, values, valid):
        import torch

        with torch.inference_mode():
            return self._net(self._inputs(values, valid)).softmax(1).movedim(1, -1).cpu().numpy()


def rate(share):
    """Return the learning rate after a share of the time: warm-up, then half a cosine."""
    if share < WARM_UP:
        return LEARNING_RATE * (0.01 + 0.99 * share / WARM_UP)
    return LEARNING_RATE * max(0.01, 0.5 + 0.5 * math.cos(math.pi * (share - WARM_UP) / 0.95))


def train(net, inputs, batches, minutes, steps):
    """Train for a time or a number of steps; return the averaged network, steps and seconds."""
    import torch
    from torch.optim.swa_utils import AveragedModel

    from segfocal.losses import DiceCrossEntropy

    loss_of = DiceCrossEntropy()
    optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    def towards(average, current, seen):
        momentum = min(AVERAGED, (1 + float(seen)) / (10 + float(seen)))
        return momentum * average + (1 - momentum) * current

    averaged = AveragedModel(net, avg_fn=towards)
    started = told = time.monotonic()
    for step in itertools.count():
        seconds = time.monotonic() - started
        share = seconds / (60 * minutes) if steps is None else step / steps
        if share >= 1:
            return averaged.module.eval(), step, seconds
        for group in optimizer.param_groups:
            group["lr"] = rate(share)
        values, valid, labels = batches.get(*divmod(step, EPOCH))
        logits = net(inputs(values, valid)).movedim(1, -1)
        loss = loss_of(torch.from_numpy(labels).to(logits.device), logits)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        averaged.update_parameters(net)
        if time.monotonic() - told > 30:
            told = time.monotonic()
            print(f"step {step + 1}: loss {float(loss):.3f}, {share:.0%}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spec", type=Path, default=HERE / "accuracy_specs" / "hippocampus.yaml")
    parser.add_argument("--data", type=Path, help="folder of the scans; left out, the spec's")
    parser.add_argument("--max-minutes", type=float, default=90.0, help="of training")
    parser.add_argument("--steps", type=int, help="train so many steps instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--augmentation", choices=("light", "default", "none"), default="default")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/dynunet"))
    given = parser.parse_args()
    if MISSING:
        print(f"needs {' and '.join(MISSING)}: pip install 'segfocal[peers]'", file=sys.stderr)
        sys.exit(2)
    if given.max_minutes <= 0:
        parser.error(f"--max-minutes {given.max_minutes}; expected more than 0")
    os.environ["KERAS_BACKEND"] = "torch"  # before anything imports Keras
    with contextlib.redirect_stdout(sys.stderr):
        result = compare(given)
    print(json.dumps(result, indent=2))


def compare(given):
    """Train and score once; return what is printed."""
    import torch

    import segfocal as sf
    from segfocal.data.workers import BatchWorkers, SamplerRecipe

    device = "cuda" if torch.cuda.is_available() else "cpu"
    spec = sf.load_spec(given.spec, root=given.data)
    plan = sf.make_plan(
        spec, preset="micro_fine", patch=PATCH, batch_size=BATCH, seed=given.seed,
        augmentation=given.augmentation,
    ).model_copy(update={"mirror_axes": MIRROR_AXES})  # fmt: skip
    torch.manual_seed(given.seed)
    net = network(len(spec.channels), spec.num_classes).to(device)
    inputs = Standardized(plan.card, device)
    recipe = SamplerRecipe(spec, plan, cache_bytes=2**30)
    with BatchWorkers(recipe, EPOCH) as batches:
        trained, steps, seconds = train(net, inputs, batches, given.max_minutes, given.steps)
    peer = Peer(trained, plan.card, inputs, f"dynunet-{given.seed}-{steps}-{time.time_ns()}")
    scores = {}
    for tile in TILES:
        name = "x".join(map(str, tile))
        score = sf.evaluate(peer, spec, "test", out=given.out / name, overwrite=True, tile=tile)
        scores[name] = {
            "mean_dice": round(score.foreground_dice, 4),
            "interval": score.as_json()["intervals"]["foreground_dice"],
        }
        for kind in ("dice", "hd95"):
            means = {score.classes[k]: score.over_cases(kind, k)["mean"] for k in score.foreground}
            scores[name][kind] = means
    assert "tensorflow" not in sys.modules
    return {
        "network": "MONAI DynUNet",
        "parameters": sum(one.numel() for one in net.parameters()),
        "spec": spec.name,
        "cases": {"train": len(spec.regions("train")), "test": len(score.cases)},
        "seed": given.seed,
        "steps": steps,
        "minutes": round(seconds / 60, 2),
        "device": device,
        "by_tile": scores,
        "labels": str(given.out),
    }


if __name__ == "__main__":
    main()
