"""Nuclei in microscopy images, 2-D, from labels that number them; then count them.

    python pipelines/train_nuclei.py --data FOLDER -o runs/nuclei

FOLDER has images/NAME.png, RGB of any size, and labels/NAME.png of the same sizes with 0 for
background and a number for each nucleus (Data Science Bowl 2018, stage 1). A third of the images
is held out.
"""

import argparse
from pathlib import Path

import numpy as np
import rasterio
from skimage.measure import label

import segfocal as sf

SPECS = Path(__file__).resolve().parent.parent / "benchmarks" / "accuracy_specs"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of images and labels")
    parser.add_argument("--spec", type=Path, default=SPECS / "nuclei.yaml")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/nuclei"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run")
    given = parser.parse_args()

    spec = sf.load_spec(given.spec, root=given.data)
    plan = sf.make_plan(spec, preset="nano", patch=(128, 128), batch_size=8, steps=given.steps)
    model = sf.FocalUNet.from_plan(spec, plan)
    sf.train(model, spec, plan, given.out, overwrite=given.overwrite)

    score = sf.evaluate(model, spec, "test", out=given.out / "test", overwrite=True)
    print(f"mean Dice of {len(score.cases)} images {score.foreground_dice:.3f}")

    # The network tells nucleus from background; nuclei that touch count as one.
    for case, path in score.labels.items():
        with rasterio.open(path) as found, rasterio.open(given.data / f"labels/{case}.png") as own:
            number, expected = label(found.read(1) == 1).max(), len(np.unique(own.read(1))) - 1
        print(f"{case}: {number} pieces, {expected} nuclei")


if __name__ == "__main__":
    try:
        main()
    except (sf.SegfocalError, OSError) as error:
        raise SystemExit(str(error)) from None
