"""How long one training step takes (forward, backward, AdamW): FocalUNet, and MONAI's networks.

    python benchmarks/training_step.py                          # 256 x 256, 4; 64 x 64 x 64, 2
    python benchmarks/training_step.py --preset-2d nano --side 64 --length 32 --rounds 2

The same batch of noise and labels in every step, in memory: see loader.py for what loading adds.
FocalUNet trains as `segfocal train` lets it: Keras on TensorFlow, compiled, AdamW, Dice and
cross-entropy. So does the U-Net of 2015, in Keras. MONAI's networks train in PyTorch with its
DiceCELoss and PyTorch's AdamW. Each waits in a process of its own and takes a step when it is its
turn; medians of the times and of the ratios within each round are reported. Peers need `pip
install 'segfocal[peers]'`; what is missing is left out.
"""

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from peer_networks import MONAI, U_NET, keras_unet, monai_network
from plots import bar_plot
from tables import page_options, table, write_tables
from turns import THREADS, Entry, Measured, Ready, serve_if_asked, take_turns

BASE = "FocalUNet"
HEADER = ["network", "parameters", "seconds per step", f"speed of {BASE}", "peak MB"]


def batch(setting: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return noise ``(batch, *patch, channels)`` and labels ``(batch, *patch)``."""
    rng = np.random.default_rng(0)
    shape = (setting["batch"], *setting["patch"])
    image = rng.normal(size=(*shape, setting["channels"])).astype(np.float32)
    return image, rng.integers(0, setting["classes"], shape).astype(np.int32)


def focal_step(setting: dict[str, Any]) -> Ready:
    import segfocal as sf
    from segfocal.losses import DiceCrossEntropy

    network = sf.FocalUNet(
        setting["classes"], setting["channels"], setting["preset"], ndim=len(setting["patch"])
    )
    image, labels = batch(setting)
    inputs = {"image": image, "valid": np.ones(labels.shape, bool)}
    return keras_step(network, DiceCrossEntropy(), inputs, labels)


def unet_step(setting: dict[str, Any]) -> Ready:
    from segfocal.losses import DiceCrossEntropy

    network = keras_unet(setting["patch"], setting["channels"], setting["classes"])
    return keras_step(network, DiceCrossEntropy(), *batch(setting))


def keras_step(network: Any, loss: Any, inputs: Any, labels: np.ndarray) -> Ready:
    import keras

    network.compile(keras.optimizers.AdamW(1e-4), loss)
    return Ready(lambda: network.train_on_batch(inputs, labels), network.count_params())


def monai_step(name: str) -> Callable[[dict[str, Any]], Ready]:
    def make(setting: dict[str, Any]) -> Ready:
        import torch
        from monai.losses import DiceCELoss

        network = monai_network(name, setting["patch"], setting["channels"], setting["classes"])
        image, labels = batch(setting)
        image = torch.from_numpy(np.moveaxis(image, -1, 1).copy())
        labels = torch.from_numpy(labels[:, None]).long()
        optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
        loss = DiceCELoss(to_onehot_y=True, softmax=True)
        network.train()

        def run() -> None:
            optimizer.zero_grad()
            loss(network(image), labels).backward()
            optimizer.step()

        return Ready(run, sum(weight.numel() for weight in network.parameters()))

    return make


ENTRIES = {
    BASE: Entry(focal_step),
    U_NET: Entry(unet_step),
    **{f"MONAI {name}": Entry(monai_step(name), needs) for name, needs in MONAI.items()},
}


def rows(found: Mapping[str, Measured]) -> list[list[str]]:
    """Return the table's rows; what was left out says why in its last column."""
    return [
        [name, *[""] * (len(HEADER) - 2), one.left_out]
        if one.left_out
        else [
            name,
            f"{(one.parameters or 0) / 1e6:.1f} M",
            f"{one.median:.3f}",
            f"{one.ratio(found[BASE]):.2f}",
            f"{one.peak_bytes / 1e6:.0f}",
        ]
        for name, one in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--preset-2d", default="tiny_srf")
    parser.add_argument("--preset-3d", default="micro")
    parser.add_argument("--side", type=int, default=256, help="of a patch of scenes")
    parser.add_argument("--length", type=int, default=64, help="of a patch of volumes")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--without-peers", action="store_true")
    page_options(parser, __file__)
    options = parser.parse_args()
    names = [name for name in ENTRIES if name == BASE or not options.without_peers]
    parts = []
    for ndim, setting in (
        (2, {"preset": options.preset_2d, "patch": [options.side] * 2, "batch": 4,
             "channels": 3, "classes": 6}),
        (3, {"preset": options.preset_3d, "patch": [options.length] * 3, "batch": 2,
             "channels": 1, "classes": 3}),
    ):  # fmt: skip
        found = take_turns(
            __file__, ENTRIES, names, setting, options.rounds, threads=options.threads
        )
        shape = " × ".join(str(side) for side in setting["patch"])
        what = f"{shape}, {setting['batch']} patches"
        plot = options.out.with_name(f"{options.out.stem}_{ndim}d.svg")
        seconds = {name: one.median for name, one in found.items() if not one.left_out}
        bar_plot(plot, f"A training step, {what}: seconds", seconds, "s", BASE)
        parts += [
            f"{what}, {setting['channels']} channels, {setting['classes']} classes, FocalUNet "
            f"{setting['preset']}, {options.threads} threads; medians of {options.rounds} rounds.",
            table(HEADER, rows(found)),
            f"![A training step, {what}]({plot.name})",
        ]
    write_tables(options.out, "A training step", "training_step.py", parts)


if __name__ == "__main__":
    serve_if_asked(ENTRIES)
    main()
