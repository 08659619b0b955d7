"""Anterior and posterior hippocampus in T1 MR volumes, in 3-D.

    python pipelines/train_hippocampus.py --data FOLDER -o runs/hippocampus

FOLDER is Task04_Hippocampus of the Medical Segmentation Decathlon
(http://medicaldecathlon.com): imagesTr/hippocampus_001.nii.gz, labelsTr/hippocampus_001.nii.gz, ...
A fifth of the cases is held out. Stopped by --max-minutes or killed, the same command with
--resume goes on.
"""

import argparse
from pathlib import Path

import segfocal as sf

SPECS = Path(__file__).resolve().parent.parent / "benchmarks" / "accuracy_specs"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of imagesTr, labelsTr")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/hippocampus"))
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--max-minutes", type=float)
    parser.add_argument("--resume", action="store_true")
    given = parser.parse_args()

    spec = sf.load_spec(SPECS / "hippocampus.yaml", root=given.data)
    # A patch holds nearly all of a scan: these are cut to the hippocampus. Intensities differ
    # by a factor of 1000 between scans, so the spec has each normalized by its own numbers.
    plan = sf.make_plan(spec, preset="nano", patch=(48, 64, 48), batch_size=4, steps=given.steps)
    model = sf.FocalUNet.from_plan(spec, plan)
    run = sf.train(
        model, spec, plan, given.out,
        overwrite=not given.resume, resume=given.resume, max_minutes=given.max_minutes,
    )  # fmt: skip
    print(f"{run.steps} of {plan.steps} steps in {run.seconds:.0f} s")

    score = sf.evaluate(run.model, spec, "test", out=given.out / "test", overwrite=True)
    for k in score.foreground:
        dice, hd95 = score.over_cases("dice", k), score.over_cases("hd95", k)
        print(f"{score.classes[k]}: Dice {dice['mean'] or 0:.3f}, HD95 {hd95['mean']} mm")
    print(f"mean Dice {score.foreground_dice:.3f} of {len(score.cases)} cases")


if __name__ == "__main__":
    main()
