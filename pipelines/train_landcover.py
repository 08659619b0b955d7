"""Land cover of a scene: train, evaluate and apply a model, from top to bottom.

    python pipelines/train_landcover.py -o runs/landcover

The same sequence as `segfocal train` and `segfocal evaluate`, written out, to be copied and
changed. It needs nothing: the Landsat sample ships with segfocal. With --data FOLDER it takes the
dense labels of the same data set: landsat_multiband.tif, lsat7_2000_70.tif and strata.tif there.
"""

import argparse
from pathlib import Path

import keras

import segfocal as sf
from segfocal.losses import DiceCrossEntropy

REPOSITORY = Path(__file__).resolve().parent.parent


class Lines(keras.callbacks.Callback):
    """Any Keras callback can be passed; this one prints a line per epoch."""

    def on_epoch_end(self, epoch, logs=None):
        values = ", ".join(f"{name} {value:.3f}" for name, value in (logs or {}).items())
        print(f"epoch {epoch + 1}: {values}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of sat_nc_landsat7_landclass96")
    parser.add_argument("--spec", type=Path, help="left out, one of this repository's")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/landcover"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run")
    given = parser.parse_args()

    # What the data is: channels, classes, files, splits. Another dataset is another YAML file.
    if given.spec is not None:
        spec = sf.load_spec(given.spec, root=given.data)
    elif given.data is None:
        spec = sf.load_spec(REPOSITORY / "data_specs" / "nc_landcover.yaml")
    else:
        spec = sf.load_spec(REPOSITORY / "benchmarks/accuracy_specs/nc.yaml", root=given.data)

    # What follows from it: statistics of the training split, patch and batch size. The scene is
    # small, so that patches of 128 leave enough places to cut them from.
    plan = sf.make_plan(spec, preset="nano", patch=(128, 128), batch_size=8, steps=given.steps)
    for label, pixels in zip(spec.classes, plan.class_pixels, strict=True):
        print(f"{label.name:12} {pixels:>8} labelled pixels")
    model = sf.FocalUNet.from_plan(spec, plan)
    print(f"{model.count_params():,} parameters")

    # Agriculture and sediment are rare: a heavier Dice term weighs classes rather than pixels.
    loss = DiceCrossEntropy(dice_weight=2.0)
    sf.train(
        model, spec, plan, given.out, overwrite=given.overwrite, loss=loss, callbacks=[Lines()]
    )

    score = sf.evaluate(model, spec, "test", out=given.out / "test", overwrite=True)
    print(f"east half: accuracy {score.accuracy:.3f}, mean IoU {score.mean_iou:.3f}")

    # Apply it to any scene with the same bands; here, with more overlap for smoother seams.
    scene = spec.image_files(spec.cases[0])
    sf.predict(model, scene, given.out / "labels.tif", overlap=64, overwrite=True)


if __name__ == "__main__":
    try:
        main()
    except (sf.SegfocalError, OSError) as error:
        raise SystemExit(str(error)) from None
