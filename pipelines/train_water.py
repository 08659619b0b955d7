"""Water from Sentinel-1 and Sentinel-2 together, or from Sentinel-2 alone.

    python pipelines/train_water.py --data FOLDER -o runs/water

FOLDER has Spain_7370579_S1Hand.tif, Spain_7370579_S2Hand.tif and Spain_7370579_LabelHand.tif, a
chip of Sen1Floods11 (https://github.com/cloudtostreet/Sen1Floods11, sample). One half is trained
on and the other scored.
"""

import argparse
from pathlib import Path

import segfocal as sf

SPECS = Path(__file__).resolve().parent.parent / "benchmarks" / "accuracy_specs"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the three files")
    parser.add_argument("--specs", type=Path, default=SPECS, help="folder of the specs")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/water"))
    parser.add_argument("--sensors", choices=("s1s2", "s2"), default="s1s2")
    parser.add_argument("--half", choices=("west", "east"), default="west", help="to train on")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run")
    given = parser.parse_args()

    # Sensors are files of one case, and channels are chosen from both by name.
    spec = sf.load_spec(given.specs / f"spain_{given.sensors}_{given.half}.yaml", root=given.data)
    plan = sf.make_plan(spec, preset="nano", patch=(128, 128), batch_size=8, steps=given.steps)
    model = sf.FocalUNet.from_plan(spec, plan)
    sf.train(model, spec, plan, given.out, overwrite=given.overwrite)

    score = sf.evaluate(model, spec, "test", out=given.out / "test", overwrite=True)
    water = score.as_json()["classes"][1]
    print(f"water: IoU {water['iou'] or 0:.3f}, recall {water['recall'] or 0:.3f}")

    # Two files that make up one scan go to predict in this order; the grid is the first's.
    scene = spec.image_files(spec.cases[0])
    done = sf.predict(
        model, scene, given.out / "water.tif", probabilities="uint8", uncertainty=True,
        overwrite=True,
    )  # fmt: skip
    print(f"{done.output}: {done.class_pixels[1]} pixels of water")


if __name__ == "__main__":
    try:
        main()
    except (sf.SegfocalError, OSError) as error:
        raise SystemExit(str(error)) from None
