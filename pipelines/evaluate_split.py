"""Evaluate a model on a split of a spec: whole scans, and the cases that need looking at.

    python pipelines/evaluate_split.py runs/landcover/model.keras landcover.yaml -o runs/test

Needs a trained model, the spec it was trained on, and its data (--data where they do not lie where
the spec says). The folder gets label maps, scores.json, scores.csv and scores.html, the report.
"""

import argparse
from pathlib import Path

import segfocal as sf


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--data", type=Path, help="folder of the scans")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/test"))
    given = parser.parse_args()

    spec = sf.load_spec(given.spec, root=given.data)
    score = sf.evaluate(
        given.model, spec, given.split, out=given.out, calibration=True, overwrite=True
    )
    low_high = score.intervals()["mean_iou"]  # by drawing cases; a single one has no interval
    print(f"mean IoU {score.mean_iou:.3f}", "" if low_high is None else f"95 %: {low_high}")
    for k, name in enumerate(score.classes):
        dice, hd95 = score.over_cases("dice", k), score.over_cases("hd95", k)
        print(f"{name:12} Dice {dice['mean']}, HD95 {hd95['mean']} {score.distance_unit}")

    for case in sorted(score.cases, key=lambda one: one.mean_dice)[:5]:
        print(f"look at {case.case}: mean Dice {case.mean_dice:.3f}, {score.labels[case.case]}")
    if score.calibration is not None:
        print(f"expected calibration error {score.calibration.error:.3f}")


if __name__ == "__main__":
    main()
