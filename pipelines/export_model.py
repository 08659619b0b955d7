"""Export a model, and run the exported file as another program would.

    python pipelines/export_model.py runs/landcover/model.keras -o landcover.onnx

Needs a trained model, `pip install 'segfocal[onnx]'`, and for .xml `pip install
'segfocal[openvino]'`. The written file is compared with the Keras model before it is kept. For a
.onnx file the script runs ONNX Runtime by itself on noise, as QGIS plugins and servers do.
"""

import argparse
from pathlib import Path

import numpy as np

import segfocal as sf


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("model.onnx"), help=".onnx or .xml")
    given = parser.parse_args()

    done = sf.export(given.model, given.out, overwrite=True)
    print(f"{done.output}: {done.engine}, at most {done.difference:.1e} from the Keras model")

    # The card travels inside: what the channels and classes are is read from the file alone.
    card = sf.load_model(given.out).card
    print("channels:", ", ".join(channel.name for channel in card.channels))
    print("classes:", ", ".join(f"{one.value} {one.name}" for one in card.classes))
    if given.out.suffix != ".onnx":
        return
    import onnxruntime

    session = onnxruntime.InferenceSession(given.out)
    shape = (1, *(64,) * card.ndim)  # batch and space are free
    noise = np.random.default_rng(0).normal(size=(*shape, len(card.network_channels)))
    image = noise * [one.std for one in card.network_channels]
    image = (image + [one.mean for one in card.network_channels]).astype("float32")
    inputs = {"image": image, "valid": np.ones(shape, bool)}
    (probabilities,) = session.run(["probabilities"], inputs)
    print(f"probabilities {probabilities.shape}, sums {probabilities.sum(-1).mean():.4f}")


if __name__ == "__main__":
    main()
