"""How long a network takes for one tile: FocalUNet in three engines, and MONAI's networks.

    python benchmarks/network_speed.py                          # tiny_srf, 512 x 512, six classes
    python benchmarks/network_speed.py --preset nano --side 128 --repeat 5

RGB images, one tile per call. Each network waits in a process of its own and runs one tile when
it is its turn, so that a slower moment of the machine meets all of them; medians of the times and
of the ratios within each round are reported. MONAI's run in PyTorch. The share of the matrix rate
is the network's multiplications and additions per second against those of a float32 product of
two matrices of 2048 x 2048 in numpy, measured in the same rounds. Weights are random: the int8
model is calibrated on noise here, which says nothing about what it loses. See `segfocal quantize`
for that.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tables import table, write_tables

CLASSES, CHANNELS, MATRIX = 6, 3, 2048

OURS = ("FocalUNet, TensorFlow", "FocalUNet, OpenVINO float32", "FocalUNet, OpenVINO int8")
PEERS = ("MONAI SwinUNETR", "MONAI DynUNet")
PRODUCT = "matrix product"


def focal_keras(folder, tile):
    import segfocal as sf
    from segfocal.engine.predictors import as_predictor

    return predicting(as_predictor(sf.load_model(folder / "model.keras")), tile)


def focal_openvino(name):
    def make(folder, tile):
        from segfocal.engine.openvino_predictor import OpenVINOPredictor

        predictor = OpenVINOPredictor(folder / name)
        # Two tiles at once is how it runs; the time of one is half of it.
        return predicting(predictor, tile, batch=2)

    return make


def predicting(predictor, tile, batch=1):
    values = np.random.default_rng(0).normal(size=(batch, *tile, CHANNELS)).astype(np.float32)
    valid = np.ones((batch, *tile), bool)
    return lambda: predictor(values, valid), batch


def monai_network(name):
    def make(folder, tile):
        import torch
        from monai.networks import nets

        if name == "SwinUNETR":
            network = nets.SwinUNETR(
                in_channels=CHANNELS, out_channels=CLASSES, feature_size=48, spatial_dims=2
            )
        else:
            network = nets.DynUNet(
                spatial_dims=2, in_channels=CHANNELS, out_channels=CLASSES,
                kernel_size=[3] * 6, strides=[1, 2, 2, 2, 2, 2], upsample_kernel_size=[2] * 5,
            )  # fmt: skip
        network.eval()
        (folder / f"{name}.txt").write_text(str(sum(p.numel() for p in network.parameters())))
        image = torch.randn(1, CHANNELS, *tile)

        def run():
            with torch.inference_mode():
                network(image).softmax(1)

        return run, 1

    return make


def matrix_product(folder, tile):
    a = np.random.default_rng(0).normal(size=(MATRIX, MATRIX)).astype(np.float32)
    return lambda: a @ a, 1


MAKERS = {
    OURS[0]: focal_keras,
    OURS[1]: focal_openvino("model.xml"),
    OURS[2]: focal_openvino("int8.xml"),
    PEERS[0]: monai_network("SwinUNETR"),
    PEERS[1]: monai_network("DynUNet"),
    PRODUCT: matrix_product,
}


def serve(name, folder, side):
    """Run one tile for each line that comes in, and print the seconds it took."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries may print
    run, tiles = MAKERS[name](folder, (side, side))
    for _ in range(2):
        run()
    answers.write("ready\n")
    for _ in sys.stdin:
        started = time.perf_counter()
        run()
        answers.write(f"{(time.perf_counter() - started) / tiles}\n")


def make_models(folder, preset, side):
    """Write the Keras, float32 and int8 models; return parameters and MACs of a tile."""
    import segfocal as sf
    from segfocal.models.cost import multiply_accumulates

    rng = np.random.default_rng(0)
    model = sf.FocalUNet(CLASSES, CHANNELS, preset)
    model.save(folder / "model.keras")
    sf.export(model, folder / "model.xml", progress=lambda step: print(step, flush=True))
    if importlib.util.find_spec("nncf") is not None:
        import rasterio

        with rasterio.open(
            folder / "noise.tif", "w", driver="GTiff", width=2 * side, height=2 * side,
            count=CHANNELS, dtype="float32", crs="EPSG:32633",
            transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
        ) as scene:  # fmt: skip
            scene.write(rng.normal(size=(CHANNELS, 2 * side, 2 * side)).astype(np.float32))
        sf.quantize(
            folder / "model.xml", folder / "noise.tif", folder / "int8.xml", tiles=4, tile=side
        )
    work = multiply_accumulates(model, (side, side))
    return model.count_params(), work


def measure(names, folder, side, repeat):
    """Return the seconds of each round, per name."""
    workers = {}
    for name in names:
        command = [sys.executable, __file__, "--serve", name, str(folder), str(side)]
        workers[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if workers[name].stdout.readline() != "ready\n":
            sys.exit(f"{name} did not start")
    seconds = {name: [] for name in names}
    for _ in range(repeat):
        for name, worker in workers.items():
            worker.stdin.write("run\n")
            worker.stdin.flush()
            seconds[name].append(float(worker.stdout.readline()))
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    return seconds


def ratio(times, base):
    return statistics.median(b / t for t, b in zip(times, base, strict=True))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
        sys.exit()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--preset", default="tiny_srf")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        parameters, work = make_models(folder, options.preset, options.side)
        names = [name for name in MAKERS if not (name in PEERS and options.without_peers)]
        if not (folder / "int8.xml").exists():
            names.remove(OURS[2])
        seconds = measure(names, folder, options.side, options.repeat)
        counts = {name: parameters for name in OURS}
        for name in PEERS:
            place = folder / f"{name.split()[1]}.txt"
            if place.exists():
                counts[name] = int(place.read_text())
    rate = 2 * MATRIX**3 / statistics.median(seconds[PRODUCT])
    floating = 2 * sum(work.values())
    rows = []
    for name in names[:-1]:
        middle = statistics.median(seconds[name])
        share = f"{floating / middle / rate:.0%}" if name in OURS else ""
        rows.append(
            [name, f"{counts[name] / 1e6:.1f} M", f"{1e3 * middle:.0f}",
             f"{options.side**2 / middle / 1e6:.2f}",
             f"{ratio(seconds[name], seconds[OURS[1]]):.2f}", share]
        )  # fmt: skip
    per_megapixel = {part: macs / options.side**2 / 1e3 for part, macs in work.items()}
    write_tables(
        options.out,
        "Speed of the network",
        "network_speed.py",
        [
            f"{options.preset}, {options.side} × {options.side} pixels, {CHANNELS} channels, "
            f"{CLASSES} classes, {os.cpu_count()} cores; medians of {options.repeat}. "
            f"Matrix products: {rate / 1e9:.0f} GFLOP/s. Per megapixel the encoder takes "
            f"{per_megapixel['encoder']:.1f} G multiply-accumulate operations, the decoder "
            f"{per_megapixel['decoder']:.1f} G.",
            table(
                ["network", "parameters", "ms per tile", "Mpx/s", "speed of OpenVINO float32",
                 "share of the matrix rate"],
                rows,
            ),
        ],
    )  # fmt: skip
