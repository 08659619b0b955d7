"""Focal modulation against attention: time and memory of one layer, from 16 x 16 positions on.

    python benchmarks/attention.py                              # up to 256 x 256, 12 GB each
    python benchmarks/attention.py --sides 8 16 --rounds 2

`segfocal.layers.FocalModulation` and `keras.layers.MultiHeadAttention` take the same map of
positions x positions x channels, with the width of the tiny encoder's first stage and Swin's
heads for it. Each pair of layer and size has a process of its own with a bound on its memory, and
the layers of a size take turns; what asks for more memory than the bound is reported as such. On
Keras's PyTorch backend the attention is PyTorch's fused one, which never holds the map of
positions x positions: its memory grows no faster, its time still does. Memory is what the process
held at most beyond what it held before the first call.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
from plots import line_plot
from tables import page_options, table, write_tables
from turns import THREADS, Entry, Measured, Ready, serve_if_asked, take_turns

from segfocal.engine.memory import parse_bytes

FOCAL, ATTENTION = "focal modulation", "attention"
TENSORFLOW, PYTORCH = "TensorFlow", "PyTorch, fused"
BASE = f"{FOCAL}, {TENSORFLOW}"


def focal_layer(setting: dict[str, Any]) -> Ready:
    from segfocal.quiet import load_keras

    load_keras()
    import keras

    from segfocal.layers import FocalModulation

    image = keras.Input((setting["side"], setting["side"], setting["width"]))
    return run_layer(keras.Model(image, FocalModulation()(image)), setting)


def attention_layer(setting: dict[str, Any]) -> Ready:
    from segfocal.quiet import load_keras

    load_keras()
    import keras

    side, width, heads = (setting[name] for name in ("side", "width", "heads"))
    image = keras.Input((side, side, width))
    tokens = keras.layers.Reshape((side * side, width))(image)
    found = keras.layers.MultiHeadAttention(heads, width // heads)(tokens, tokens)
    return run_layer(keras.Model(image, keras.layers.Reshape((side, side, width))(found)), setting)


def run_layer(model: Any, setting: dict[str, Any]) -> Ready:
    shape = (1, setting["side"], setting["side"], setting["width"])
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return Ready(lambda: model.predict_on_batch(values), model.count_params())


ENTRIES = {
    BASE: Entry(focal_layer),
    f"{ATTENTION}, {TENSORFLOW}": Entry(attention_layer),
    f"{FOCAL}, PyTorch": Entry(focal_layer, ("torch",), "torch"),
    f"{ATTENTION}, {PYTORCH}": Entry(attention_layer, ("torch",), "torch"),
}


def cells(found: Mapping[int, Mapping[str, Measured]]) -> list[list[str]]:
    """Return rows with time, memory and the ratio to focal modulation, by side and layer."""
    rows = []
    for side, layers in found.items():
        for name, one in layers.items():
            row = [f"{side} × {side}", name]
            if one.left_out:
                rows.append([*row, one.left_out, "", ""])
                continue
            base = layers[BASE]
            times = "" if base.left_out else f"{base.ratio(one):.2f}"
            megabytes = f"{one.grown_bytes / 1e6:.0f}"
            rows.append([*row, f"{1e3 * one.median:.1f}", times, megabytes])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--width", type=int, default=96, help="channels")
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--limit", default="12GB", help="memory of each process (12GB)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--without-peers", action="store_true", help="TensorFlow only")
    page_options(parser, __file__)
    options = parser.parse_args()
    limit = parse_bytes(options.limit, "--limit")
    names = [
        name
        for name, one in ENTRIES.items()
        if not (options.without_peers and "torch" in one.needs)
    ]
    found = {}
    for side in options.sides:
        setting = {"side": side, "width": options.width, "heads": options.heads}
        print(f"{side} x {side}", flush=True)
        found[side] = take_turns(
            __file__, ENTRIES, names, setting, options.rounds, threads=options.threads, limit=limit
        )
    plots = []
    for kind, label, value in (
        ("time", "ms", lambda one: 1e3 * one.median),
        ("memory", "MB", lambda one: max(one.grown_bytes, 1e6) / 1e6),
    ):
        curves = {
            name: [
                (float(side), value(layers[name]))
                for side, layers in found.items()
                if not layers[name].left_out
            ]
            for name in names
        }
        plot = options.out.with_name(f"{options.out.stem}_{kind}.svg")
        title = f"One layer of {options.width} channels: {kind}"
        line_plot(
            plot, title, {name: curve for name, curve in curves.items() if curve},
            "side of the map in positions", label,
        )  # fmt: skip
        plots.append(f"![{title}]({plot.name})")
    header = ["positions", "layer", "ms", f"times {BASE}", "MB beyond the start"]
    write_tables(
        options.out,
        "Focal modulation against attention",
        "attention.py",
        [
            f"{options.width} channels, {options.heads} heads, two focal levels, {options.threads} "
            f"threads, at most {limit / 1e9:g} GB a process; medians of {options.rounds} rounds.",
            table(header, cells(found)),
            *plots,
        ],
    )


if __name__ == "__main__":
    serve_if_asked(ENTRIES)
    main()
