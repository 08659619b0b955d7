"""Clouds and their shadows across sensors: trained on one Landsat, tested on another.

    python pipelines/train_clouds.py --data FOLDER -o runs/clouds

FOLDER has landsat5.npz and landsat7.npz, each with img, reflectances (rows, cols, 6: blue, green,
red, nir, swir16, swir22), and msk, labels (rows, cols: 0 shadow, 1 water, 3 land, 4 cloud), as
https://github.com/dlr-eoc/ukis-csmask has them in tests/testfiles.
"""

import argparse
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine

import segfocal as sf

SPECS = Path(__file__).resolve().parent.parent / "benchmarks" / "accuracy_specs"


def write_scenes(source: Path, folder: Path) -> None:
    """Write the arrays as GeoTIFFs; without a known place, pixels of 30 m must do."""
    folder.mkdir(parents=True, exist_ok=True)
    for sensor in ("landsat5", "landsat7"):
        arrays = np.load(source / f"{sensor}.npz")
        for kind, values in (("image", arrays["img"]), ("labels", arrays["msk"])):
            bands = np.moveaxis(np.atleast_3d(values), -1, 0)
            profile = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
            profile |= {"dtype": bands.dtype, "transform": Affine(30, 0, 0, 0, -30, 0)}
            with rasterio.open(folder / f"{sensor}_{kind}.tif", "w", **profile) as scene:
                scene.write(bands)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the two .npz files")
    parser.add_argument("--specs", type=Path, default=SPECS, help="folder of the specs")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/clouds"))
    parser.add_argument("--direction", choices=("5_to_7", "7_to_5"), default="5_to_7")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run")
    given = parser.parse_args()

    write_scenes(given.data, given.out / "scenes")
    spec = sf.load_spec(given.specs / f"clouds_{given.direction}.yaml", root=given.out / "scenes")
    plan = sf.make_plan(spec, preset="nano", patch=(128, 128), batch_size=8, steps=given.steps)
    model = sf.FocalUNet.from_plan(spec, plan)
    sf.train(model, spec, plan, given.out, overwrite=given.overwrite)

    # Distances between boundaries say little of clouds, which have none that is sharp.
    score = sf.evaluate(
        model, spec, "test", out=given.out / "test", distances=False, overwrite=True
    )
    for row in score.as_json()["classes"]:
        print(f"{row['name']:8} IoU {row['iou'] or 0:.3f}")


if __name__ == "__main__":
    try:
        main()
    except (sf.SegfocalError, OSError) as error:
        raise SystemExit(str(error)) from None
