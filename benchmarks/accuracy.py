"""How well models trained by segfocal do on real data.

    python benchmarks/accuracy.py nc clouds spain nuclei --data ../shared/data
    python benchmarks/accuracy.py hippocampus --data ../shared/data      # 90 minutes

Each experiment trains on the split ``train`` of a spec in ``benchmarks/accuracy_specs`` and scores
the split ``test`` by tiled inference over whole scans, for each of its seeds. Without the scans
(see the specs for where they come from) there is nothing to measure. Writes
``benchmarks/accuracy.md``; runs that were finished before are taken from ``--runs``.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import rasterio
from rasterio.transform import Affine
from tables import Results, spread, table, write_tables

import segfocal as sf
from segfocal.confusion import accuracy, class_dice, class_iou, mean_over_classes
from segfocal.losses import DiceCrossEntropy

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Experiment:
    """What is trained and scored, and what the field reaches.

    Attributes:
        spec: File in ``accuracy_specs``.
        scores: What is reported: ``"accuracy"``, ``"mean IoU"``, or ``"IoU"`` or ``"Dice"`` and
            the classes that are averaged.
        aims: What each score is to reach.
        plan: Arguments of :func:`segfocal.make_plan`.
        changes: Numbers of the plan that are changed.
        model: Arguments of :class:`segfocal.FocalUNet`.
        dice_weight: Of the loss.
        predict: Arguments of the tiled inference.
        minutes: Time budget of the training.
    """

    spec: str
    scores: tuple[str, ...]
    aims: tuple[float, ...]
    plan: dict[str, Any]
    seeds: tuple[int, ...] = (0, 1, 2)
    changes: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    dice_weight: float = 1.0
    predict: dict[str, Any] = field(default_factory=dict)
    minutes: float | None = None


_SMALL = {"preset": "nano", "patch": (128, 128), "batch_size": 8}
_WATER = {"plan": {**_SMALL, "steps": 400}, "scores": ("IoU water",), "aims": (0.772,)}

EXPERIMENTS = {
    "nc": [
        Experiment(
            # Small patches: in a larger one the rare classes are a smaller share.
            "nc.yaml", ("accuracy", "mean IoU"), (0.70, 0.32),
            {"preset": "nano_fine", "patch": (32, 32), "batch_size": 32, "steps": 1200,
             "augmentation": "light"},
            model={"upsampling": "transposed"}, predict={"tile": 128, "tta": "rotations"},
        )
    ],
    "clouds": [
        Experiment("clouds_5_to_7.yaml", ("IoU cloud",), (0.791,), {**_SMALL, "steps": 400}),
        Experiment("clouds_7_to_5.yaml", ("IoU cloud",), (0.880,), {**_SMALL, "steps": 400}),
    ],
    "spain": [
        Experiment(f"spain_{kind}_{half}.yaml", **_WATER)
        for kind in ("s2", "s1s2")
        for half in ("west", "east")
    ],
    "nuclei": [
        Experiment("nuclei.yaml", ("Dice nucleus",), (0.85,), {**_SMALL, "steps": 600}),
    ],
    "hippocampus": [
        Experiment(
            "hippocampus.yaml", ("Dice anterior+posterior",), (0.885,),
            {"preset": "micro_fine", "patch": (32, 48, 32), "batch_size": 4, "steps": 9000},
            # Flipped from front to back, anterior would look like posterior.
            changes={"mirror_axes": (0,)}, seeds=(0,), minutes=90,
            # All of a volume at once.
            predict={"tile": (48, 64, 48)},
        )
    ],
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=[*EXPERIMENTS])
    parser.add_argument("--data", type=Path, required=True, help="folder of the scans")
    parser.add_argument("--runs", type=Path, default=Path("runs/accuracy"))
    given = parser.parse_args()
    results = Results(given.runs / "results.json")
    for name in given.names:
        for experiment in EXPERIMENTS[name]:
            for seed in experiment.seeds:
                key = name_of(experiment, seed)
                if key not in results:
                    results[key] = run(experiment, seed, given.data, given.runs / key)
    write_tables(HERE / "accuracy.md", "Accuracy on real data", "accuracy.py", [rows(results)])


def name_of(experiment: Experiment, seed: int) -> str:
    """Return the name of a run, which another spec or another number of it changes."""
    spec = (HERE / "accuracy_specs" / experiment.spec).read_text(encoding="utf-8")
    told = repr(replace(experiment, seeds=(), aims=())) + spec
    digest = hashlib.sha256(told.encode()).hexdigest()[:8]
    return f"{Path(experiment.spec).stem}-{digest}-{seed}"


def run(experiment: Experiment, seed: int, data: Path, folder: Path) -> dict[str, Any]:
    """Train and score once; return the scores, in the order of the experiment, and the times."""
    spec = sf.load_spec(
        HERE / "accuracy_specs" / experiment.spec, root=place(experiment, data, folder.parent)
    )
    plan = sf.make_plan(spec, **experiment.plan, seed=seed)
    plan = plan.model_copy(update=experiment.changes)
    keras.utils.set_random_seed(seed)
    model = sf.FocalUNet(card=plan.card, preset=plan.preset, **experiment.model)
    trained = sf.train(
        model, spec, plan, folder, overwrite=True,
        loss=DiceCrossEntropy(dice_weight=experiment.dice_weight),
        max_minutes=experiment.minutes,
    )  # fmt: skip
    started = time.monotonic()
    found = sf.evaluate(
        trained.model, spec, "test", out=folder / "test", overwrite=True, **experiment.predict
    )
    names = [label.name for label in spec.classes]
    return {
        "scores": [score(found, names, what) for what in experiment.scores],
        "parameters": model.count_params(),
        "steps": trained.steps,
        "minutes": round(trained.seconds / 60, 1),
        "seconds of evaluation": round(time.monotonic() - started, 1),
    }


def score(found: Any, names: list[str], what: str) -> float:
    """Return one of the scores; Dice is the mean over scans, IoU over the pixels of all."""
    if what == "accuracy":
        return round(accuracy(found.matrix), 4)
    if what == "mean IoU":
        return round(mean_over_classes(class_iou(found.matrix)), 4)
    kind, _, classes = what.partition(" ")
    places = [names.index(name) for name in classes.split("+")]
    if kind == "IoU":
        return round(float(np.mean(class_iou(found.matrix)[places])), 4)
    dice = [class_dice(case.matrix)[places] for case in found.cases]
    return round(float(np.nanmean(dice)), 4)


def place(experiment: Experiment, data: Path, runs: Path) -> Path:
    """Return where the scans lie; those of clouds are written as GeoTIFF beside the runs."""
    if not experiment.spec.startswith("clouds"):
        return data.resolve() / FOLDERS[experiment.spec.split(".")[0].split("_")[0]]
    folder = data.resolve() / FOLDERS["clouds"]
    out = (runs / "clouds").resolve()
    out.mkdir(parents=True, exist_ok=True)
    for sensor in ("landsat5", "landsat7"):
        arrays = np.load(folder / f"{sensor}.npz")
        for kind, values in (("image", arrays["img"]), ("labels", arrays["msk"])):
            with rasterio.open(
                out / f"{sensor}_{kind}.tif", "w", driver="GTiff", count=values.shape[-1],
                height=512, width=512, dtype=values.dtype, transform=Affine(30, 0, 0, 0, -30, 0),
            ) as target:  # fmt: skip
                target.write(np.moveaxis(values, -1, 0))
    return out


FOLDERS = {
    "nc": "sat_nc_landsat7_landclass96",
    "clouds": "sat_cloud_csmask",
    "spain": "sat_sen1floods11_spain",
    "nuclei": "med2d_dsb2018_nuclei",
    "hippocampus": "med_msd_hippocampus",
}


def rows(results: dict[str, Any]) -> str:
    """Return a row for each experiment that was run, means over its seeds."""
    lines = []
    for experiment in (one for group in EXPERIMENTS.values() for one in group):
        stem = Path(experiment.spec).stem
        names = [name_of(experiment, seed) for seed in experiment.seeds]
        runs = [results[name] for name in names if name in results]
        for place, (what, aim) in enumerate(zip(experiment.scores, experiment.aims, strict=True)):
            if runs:
                values = [own["scores"][place] for own in runs]
                minutes = [own["minutes"] for own in runs]
                lines.append(
                    [
                        stem, what, f"{aim:.3f}", spread(values), " ".join(map(str, values)),
                        f"{runs[0]['parameters']:,}", str(runs[0]["steps"]), spread(minutes, 1),
                    ]
                )  # fmt: skip
    header = ("spec", "score", "aim", "mean", "by seed", "parameters", "steps", "minutes")
    return table(header, lines)


if __name__ == "__main__":
    main()
