"""Evaluate a model on a split of a spec: whole scans, and the cases that need looking at.

    python pipelines/evaluate_split.py runs/landcover/model.keras landcover.yaml -o runs/test

Needs a trained model, the spec it was trained on, and its data (--data where they do not lie where
the spec says). The folder gets label maps, scores.json, scores.csv and scores.html, the report.
"""

import argparse
import math
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
    interval = score.intervals()["mean_iou"]  # by drawing cases; a single one has none
    between = "" if interval is None else f", 95 % interval {interval[0]:.3f} to {interval[1]:.3f}"
    print(f"mean IoU {score.mean_iou:.3f}{between}")
    for k, name in enumerate(score.classes):
        dice, hd95 = score.mean_over_cases("dice", k), score.mean_over_cases("hd95", k)
        print(f"{name:12} Dice {dice:.3f}, HD95 {hd95:.3g} {score.distance_unit}")

    # A case of which nothing is labelled has no score: it is neither good nor bad.
    scored = [case for case in score.cases if not math.isnan(case.mean_dice)]
    for case in sorted(scored, key=lambda one: one.mean_dice)[:5]:
        print(f"look at {case.case}: mean Dice {case.mean_dice:.3f}, {score.labels[case.case]}")
    for name in sorted({case.case for case in score.cases} - {case.case for case in scored}):
        print(f"{name}: no labels in this split, so no score")
    if score.calibration is not None:
        print(f"expected calibration error {score.calibration.error:.3f}")


if __name__ == "__main__":
    main()
