"""Train, evaluate and apply a land-cover model, from top to bottom.

    python pipelines/train_landcover.py runs/landcover

The same sequence as `segfocal train` and `segfocal evaluate`, written out, to be copied and
changed. It runs on the Landsat sample that ships with segfocal.
"""

import sys
from pathlib import Path

import keras

import segfocal as sf
from segfocal.losses import DiceCrossEntropy

out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/landcover")

# What the data is: channels, classes, files, splits. Another dataset is another YAML file.
spec = sf.load_spec(Path(__file__).parent.parent / "data_specs" / "nc_landcover.yaml")

# What follows from it: statistics of the training split, patch and batch size. The scene is
# small, so that patches of 128 leave enough places to cut them from.
plan = sf.make_plan(spec, preset="nano", patch=(128, 128), batch_size=8, steps=600)
for label, pixels in zip(spec.classes, plan.class_pixels, strict=True):
    print(f"{label.name:12} {pixels:>8} labelled pixels")

model = sf.FocalUNet.from_plan(spec, plan)
print(f"{model.count_params():,} parameters")


class Report(keras.callbacks.Callback):
    """Any Keras callback can be passed; this one prints a line per epoch."""

    def on_epoch_end(self, epoch, logs=None):
        values = ", ".join(f"{name} {value:.3f}" for name, value in (logs or {}).items())
        print(f"epoch {epoch + 1}: {values}", flush=True)


# Agriculture and sediment are rare: a heavier Dice term weighs classes rather than pixels.
run = sf.train(
    model,
    spec,
    plan,
    out,
    overwrite=True,
    loss=DiceCrossEntropy(dice_weight=2.0),
    callbacks=[Report()],
)

score = sf.evaluate(run.model, spec, "test", out=out / "test", overwrite=True)
print(f"east half: accuracy {score.accuracy:.3f}, mean IoU {score.mean_iou:.3f}")

# Apply it to any scene with the same bands; here, with more overlap for smoother seams.
sf.predict(
    run.model,
    spec.path(spec.cases[0].image),
    out / "labels.tif",
    overlap=64,
    overwrite=True,
)
