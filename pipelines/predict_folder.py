"""Predict a folder of scans, go on where an earlier run stopped, and sum up the classes.

    python pipelines/predict_folder.py runs/landcover/model.keras scenes/ -o labels/

Needs a trained model (.keras, .onnx or .xml) and scans with its channels: files, folders or
patterns. A scan that fails does not stop the others; labels/summary.json says why it did.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

import segfocal as sf


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("inputs", nargs="+", help="files, folders, or patterns such as '**/*.tif'")
    parser.add_argument("-o", "--out", type=Path, default=Path("labels"))
    parser.add_argument("--tta", choices=("flips", "rotations"), help="slower, a little better")
    given = parser.parse_args()

    summary = sf.predict_many(
        given.model,
        given.inputs,
        given.out,
        tta=given.tta,
        progress=lambda done, total: print(f"{done} of {total} scans", flush=True),
        notice=lambda text: print(text, file=sys.stderr),
    )
    # Each label map tells what it was made from, and how much it shows of each class.
    pixels: Counter[str] = Counter()
    for outcome in summary.outcomes:
        if outcome.status in ("done", "unchanged"):
            result = sf.inspect(outcome.output)["provenance"]["result"]
            pixels.update({one["name"]: one["pixels"] for one in result["classes"]})
    for name, number in pixels.most_common():
        print(f"{name:12} {number / sum(pixels.values()):6.1%}")
    for outcome in summary.failed:
        print(f"failed: {outcome.input[0]}: {outcome.reason}", file=sys.stderr)
    sys.exit(1 if summary.failed else 0)


if __name__ == "__main__":
    main()
