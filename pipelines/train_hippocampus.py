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
    parser.add_argument("--spec", type=Path, default=SPECS / "hippocampus.yaml")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/hippocampus"))
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--max-minutes", type=float)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run")
    given = parser.parse_args()

    spec = sf.load_spec(given.spec, root=given.data)
    # A patch holds nearly all of a scan: these are cut to the hippocampus. Intensities differ
    # by a factor of 1000 between scans, so the spec has each normalized by its own numbers. The
    # hippocampus is some 15 voxels wide: the encoder begins at half resolution.
    plan = sf.make_plan(
        spec, preset="micro_fine", patch=(32, 48, 32), batch_size=4, steps=given.steps
    )
    # Flipped from front to back, anterior would look like posterior.
    plan = plan.model_copy(update={"mirror_axes": (0,)})
    model = sf.FocalUNet.from_plan(spec, plan)
    run = sf.train(
        model, spec, plan, given.out,
        overwrite=given.overwrite, resume=given.resume, max_minutes=given.max_minutes,
    )  # fmt: skip
    print(f"{run.steps} of {plan.steps} steps in {run.seconds:.0f} s")

    # Tiles that hold a whole scan.
    score = sf.evaluate(
        run.model, spec, "test", out=given.out / "test", overwrite=True, tile=(48, 64, 48)
    )
    for k in score.foreground:
        dice, hd95 = score.mean_over_cases("dice", k), score.mean_over_cases("hd95", k)
        print(f"{score.classes[k]}: Dice {dice:.3f}, HD95 {hd95:.3g} mm")
    print(f"mean Dice {score.foreground_dice:.3f} of {len(score.cases)} cases")


if __name__ == "__main__":
    try:
        main()
    except (sf.SegfocalError, OSError) as error:
        raise SystemExit(str(error)) from None
