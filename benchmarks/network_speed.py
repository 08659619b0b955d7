"""How long a network takes for one tile: FocalUNet in each engine, and others.

    python benchmarks/network_speed.py                          # tiny_srf, 512 x 512, six classes
    python benchmarks/network_speed.py --preset nano --side 128 --rounds 5

RGB noise, two tiles per call, for all networks alike. Each network waits in a process of its own
and runs when it is its turn; medians of the times and of the ratios within each round are reported.
Peers: our network written in plain PyTorch, with the same weights; MONAI's SwinUNETR and DynUNet in
PyTorch, DynUNet also in OpenVINO; and the U-Net of 2015 in Keras. They need `pip install
'segfocal[peers]'`, and what is missing is left out. "Keras on PyTorch" is our Keras model on
Keras's PyTorch backend. Nothing in PyTorch is compiled. The share of the matrix rate is the
network's multiplications and additions per second against those of the fastest float32 product of
two matrices of 2048 x 2048 in the same rounds. Weights are random: the int8 model is calibrated on
noise here, which says nothing about what it loses. See `segfocal quantize` for that.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import forward_passes
from forward_passes import ENTRIES, MATRIX, OURS, PEERS, PRODUCTS, write_models
from plots import bar_plot
from tables import page_options, table, write_tables
from turns import THREADS, Measured, take_turns

BASE = "FocalUNet, OpenVINO float32"

HEADER = ["network", "parameters", "ms per tile", "Mpx/s", f"speed of {BASE}",
          "share of the matrix rate", "peak MB"]  # fmt: skip


def rows(
    found: Mapping[str, Measured], pixels: int, operations: int, parameters: int
) -> list[list[str]]:
    """Return the table's rows.

    Args:
        found: What was measured, by name.
        pixels: Of a tile.
        operations: Multiplications and additions of our network on a tile.
        parameters: Of our network.
    """
    rate = product_rate(found)
    # Without OpenVINO, what comes first.
    base = next(one for one in (found.get(BASE), *found.values()) if one and not one.left_out)
    made = []
    for name, one in found.items():
        if name in PRODUCTS:
            continue
        if one.left_out:
            made.append([name, *[""] * (len(HEADER) - 2), one.left_out])
            continue
        # Multiplications of whole numbers have another rate.
        share = name in OURS and "int8" not in name
        made.append(
            [
                name,
                f"{(one.parameters or parameters) / 1e6:.1f} M",
                f"{1e3 * one.median:.0f}",
                f"{pixels / one.median / 1e6:.2f}",
                f"{one.ratio(base):.2f}",
                f"{operations / one.median / rate:.0%}" if share else "",
                f"{one.peak_bytes / 1e6:.0f}",
            ]
        )
    return made


def product_rate(found: Mapping[str, Measured]) -> float:
    """Return the operations per second of the fastest matrix product."""
    seconds = [found[name].median for name in PRODUCTS if name in found and found[name].seconds]
    return 2 * MATRIX**3 / min(seconds)


def main(
    arguments: Sequence[str], script: str, summary: str | None, title: str, defaults: dict[str, Any]
) -> None:
    """Measure networks on square or cubic tiles, and write page and plot."""
    parser = argparse.ArgumentParser(description=(summary or "").partition("\n")[0])
    parser.add_argument("--preset")
    parser.add_argument("--side", type=int, help="of a tile")
    parser.add_argument("--batch", type=int, default=2, help="tiles per call")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--without-peers", action="store_true")
    page_options(parser, script)
    parser.set_defaults(**{name: value for name, value in defaults.items() if name != "ndim"})
    options = parser.parse_args(arguments)
    tile = [options.side] * defaults["ndim"]
    names = [name for name in ENTRIES if not (options.without_peers and name in PEERS)]
    with tempfile.TemporaryDirectory() as folder:
        setting = {"folder": folder, "tile": tile, "batch": options.batch,
                   "channels": options.channels, "classes": options.classes}  # fmt: skip
        parameters, work = write_models(setting, options.preset)
        found = take_turns(
            forward_passes.__file__, ENTRIES, names, setting, options.rounds,
            threads=options.threads,
        )  # fmt: skip
    pixels = options.side ** defaults["ndim"]
    shape = " × ".join([str(options.side)] * defaults["ndim"])
    each = {part: macs / pixels / 1e3 for part, macs in work.items()}
    plot = options.out.with_suffix(".svg")
    networks = {name: one.median * 1e3 for name, one in found.items()
                if name not in PRODUCTS and one.seconds}  # fmt: skip
    bar_plot(plot, f"{title}: {shape}, milliseconds per tile", networks, "ms", "FocalUNet")
    products = ", ".join(
        f"{2 * MATRIX**3 / found[name].median / 1e9:.0f} in {name.partition(', ')[2]}"
        for name in PRODUCTS
        if found[name].seconds
    )
    write_tables(
        options.out,
        title,
        Path(script).name,
        [
            f"{options.preset}, {shape}, {options.channels} channels, {options.classes} classes, "
            f"{options.batch} tiles per call, {options.threads} threads; medians of "
            f"{options.rounds} rounds. Matrix products, GFLOP/s: {products}. Per million pixels "
            f"the encoder takes {each['encoder']:.1f} G multiply-accumulate operations, the "
            f"decoder {each['decoder']:.1f} G.",
            table(HEADER, rows(found, pixels, 2 * sum(work.values()), parameters)),
            f"![{title}]({plot.name})",
        ],
    )


if __name__ == "__main__":
    main(
        sys.argv[1:],
        __file__,
        __doc__,
        "Speed of the network",
        {"ndim": 2, "preset": "tiny_srf", "side": 512, "rounds": 9, "channels": 3, "classes": 6},
    )
