"""How well clouds can be told at all in the two Landsat scenes: boosted trees on local features.

    python benchmarks/cloud_ceiling.py --data ../shared/data

The same trees (scikit-learn) see a pixel of some channels, their means and deviations under
Gaussians of 1 to 16 pixels, and their extremes nearby. Trained on one scene and scored on the other
they show what the change of sensor and land costs; trained on one half of a scene and scored on the
other half (with a gap of 32 rows) they show what is left when nothing changes. Writes
`benchmarks/cloud_ceiling.md`. Needs scikit-learn.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from tables import page_options, table, write_tables

CHANNELS = ("blue", "green", "red", "nir", "swir16", "swir22")
CHOICES = (("blue",), ("blue", "green"), ("blue", "nir"), ("blue", "swir16"), CHANNELS)
SCENES = ("landsat5", "landsat7")
CLOUD, GAP, EVERY = 4, 16, 7
"""Value of the class; rows left out at each side of the middle; pixels of which one is learnt."""

Part = tuple[NDArray[np.float32], NDArray[np.bool_]]


def features(image: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.float32]:
    """Return features ``(rows, columns, 14 per channel)``."""
    made = []
    for name in names:
        band = image[..., CHANNELS.index(name)].astype(np.float64)
        made.append(band)
        for sigma in (1, 2, 4, 8, 16):
            mean = ndimage.gaussian_filter(band, sigma)
            square = ndimage.gaussian_filter(band**2, sigma)
            made += [mean, np.sqrt(np.maximum(square - mean**2, 0))]
        made += [ndimage.minimum_filter(band, 15), ndimage.minimum_filter(band, 41)]
        made.append(ndimage.maximum_filter(band, 15))
    return np.stack(made, -1).astype(np.float32)


def scores(train: Part, test: Part) -> tuple[float, float]:
    """Return the IoU of clouds at a probability of one half, and at the best of all."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    trees = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=15, random_state=0)
    values, cloud = (array.reshape(train[1].size, -1) for array in train)
    trees.fit(values[::EVERY], cloud[::EVERY, 0])
    chance = trees.predict_proba(test[0].reshape(test[1].size, -1))[:, 1]
    truth = test[1].ravel()

    def iou(threshold: float) -> float:
        found = chance > threshold
        return float((found & truth).sum() / (found | truth).sum())

    return iou(0.5), max(iou(threshold) for threshold in np.arange(0.05, 1, 0.05))


def trials(scenes: dict[str, Part]) -> Iterator[tuple[str, list[tuple[Part, Part]]]]:
    """Yield what is trained on and scored on: across scenes, and within each both ways."""
    five, seven = (scenes[name] for name in SCENES)
    yield "5 to 7", [(five, seven)]
    yield "7 to 5", [(seven, five)]
    for name, (values, cloud) in scenes.items():
        middle = len(cloud) // 2
        upper, lower = slice(None, middle - GAP), slice(middle + GAP, None)
        halves = (values[upper], cloud[upper]), (values[lower], cloud[lower])
        yield f"within {name[-1]}", [halves, halves[::-1]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the scans")
    page_options(parser, __file__)
    given = parser.parse_args()
    files = {name: given.data / "sat_cloud_csmask" / f"{name}.npz" for name in SCENES}
    scans = {name: np.load(path) for name, path in files.items()}
    lines = []
    for names in CHOICES:
        scenes = {
            scene: (features(scan["img"], names), scan["msk"][..., 0] == CLOUD)
            for scene, scan in scans.items()
        }
        line = ["all six" if names == CHANNELS else ", ".join(names)]
        for _, pairs in trials(scenes):
            found = np.mean([scores(train, test) for train, test in pairs], axis=0)
            line.append(f"{found[0]:.3f} ({found[1]:.3f})")
        lines.append(line)
    header = ["channels", "5 to 7", "7 to 5", "within 5", "within 7"]
    told = (
        "IoU of clouds at a probability of one half, and in brackets at the threshold that is best "
        "on the test pixels. Within a scene: the mean of training on the upper half and scoring "
        "the lower, and the reverse."
    )
    write_tables(
        given.out, "How well clouds can be told at all", Path(__file__).name,
        [told, table(header, lines)],
    )  # fmt: skip


if __name__ == "__main__":
    main()
