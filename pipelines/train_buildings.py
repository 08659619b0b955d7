"""Buildings from polygons, and back to polygons for a GIS.

    python pipelines/train_buildings.py --data FOLDER -o runs/buildings

FOLDER has sample_geotiff.tif, a panchromatic scene, and geotiff_labels.geojson, its buildings, in
any CRS (SpaceNet 4, Atlanta, as `pip download --no-deps solaris==0.2.1` has them in solaris/data).
Needs `pip install 'segfocal[vector]'`. Blocks of the scene are held out.
"""

import argparse
from pathlib import Path

import segfocal as sf
from segfocal.losses import DiceCrossEntropy


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of scene and polygons")
    spec_here = Path(__file__).with_name("buildings.yaml")
    parser.add_argument("--spec", type=Path, default=spec_here)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/buildings"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run")
    given = parser.parse_args()

    # Polygons are drawn window by window as they are read; no mask has to be made.
    spec = sf.load_spec(given.spec, root=given.data)
    plan = sf.make_plan(spec, preset="nano", patch=(128, 128), batch_size=8, steps=given.steps)
    print(f"{plan.class_pixels[1] / sum(plan.class_pixels):.1%} of the pixels are buildings")
    model = sf.FocalUNet.from_plan(spec, plan)
    loss = DiceCrossEntropy(dice_weight=2.0)  # few pixels are buildings
    sf.train(model, spec, plan, given.out, overwrite=given.overwrite, loss=loss)

    score = sf.evaluate(model, spec, "test", out=given.out / "test", overwrite=True)
    print(f"held-out blocks: Dice of buildings {score.foreground_dice:.3f}")

    done = sf.predict(
        model,
        spec.image_files(spec.cases[0]),
        given.out / "buildings.tif",
        min_size="10m2",  # specks
        polygons=given.out / "buildings.gpkg",
        simplify=1.0,
        overwrite=True,
    )
    print(f"{given.out / 'buildings.gpkg'}: {done.polygons} polygons")


if __name__ == "__main__":
    try:
        main()
    except (sf.SegfocalError, OSError) as error:
        raise SystemExit(str(error)) from None
