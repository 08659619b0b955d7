"""The demo: train on the bundled samples, predict, compare with baselines, draw.

Nothing in it is special to the samples. It is the plan, train, evaluate sequence of any
dataset spec, with numbers chosen so that all of it takes three minutes on two cores.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfocal.baselines import majority_class, single_pixel_classifier
from segfocal.confusion import accuracy, class_dice, class_iou, mean_over_classes
from segfocal.data.spec import load_spec
from segfocal.errors import OutputExistsError, SegfocalError
from segfocal.evaluation import Evaluation, evaluate
from segfocal.io import PendingOutput
from segfocal.io.pending import writing
from segfocal.models import FocalUNet
from segfocal.overlay import write_overlay
from segfocal.planning import make_plan
from segfocal.training import train

__all__ = ["DEMOS", "Demo", "DemoResult", "bundled_spec", "run_demo"]

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Demo:
    """One of the two jobs of the demo."""

    spec: str
    headline: str
    patch: tuple[int, ...]
    batch_size: int
    steps: int


DEMOS = {
    "scene": Demo(
        spec="nc_landcover.yaml",
        headline="Landsat 7, North Carolina: land cover",
        patch=(128, 128),
        batch_size=8,
        steps=300,
    ),
    "volume": Demo(
        spec="spine_ct.yaml",
        headline="Spine CT: parts of the vertebrae",
        patch=(64, 64, 32),
        batch_size=2,
        steps=120,
    ),
}


@dataclass(frozen=True)
class DemoResult:
    """What one job of the demo left behind.

    Attributes:
        name: ``"scene"`` or ``"volume"``.
        model, labels, overlay: The files.
        matrices: Confusion matrix per contestant on the held-out part: ``"segfocal"``,
            ``"single pixels"``, ``"majority class"``.
        seconds: Wall time of the job.
    """

    name: str
    headline: str
    model: Path
    labels: Path
    overlay: Path
    matrices: dict[str, NDArray[np.int64]]
    seconds: float

    def scores(self) -> dict[str, dict[str, float]]:
        """Return accuracy, mean IoU and mean Dice per contestant."""
        return {
            who: {
                "accuracy": accuracy(matrix),
                "mean_iou": mean_over_classes(class_iou(matrix)),
                "mean_dice": mean_over_classes(class_dice(matrix)),
            }
            for who, matrix in self.matrices.items()
        }

    def as_json(self) -> dict[str, Any]:
        """Return files, scores and time as a JSON value."""
        return {
            "name": self.name,
            "model": str(self.model),
            "labels": str(self.labels),
            "overlay": str(self.overlay),
            "held_out": self.scores(),
            "seconds": round(self.seconds, 1),
        }


def bundled_spec(name: str) -> Path:
    """Return the path of a dataset spec that ships with segfocal.

    Raises:
        SegfocalError: The installation lacks it.
    """
    package = Path(__file__).resolve().parent
    # In a wheel the specs lie inside the package, in a checkout beside it.
    for folder in (package / "data_specs", package.parent / "data_specs"):
        if (folder / name).is_file():
            return folder / name
    raise SegfocalError(f"{name}: not found in this installation of segfocal; install it again")


def run_demo(
    out: str | Path,
    *,
    overwrite: bool = False,
    steps: int | None = None,
    report: Report | None = None,
) -> list[DemoResult]:
    """Run both jobs of the demo.

    Args:
        out: Folder for everything that is made.
        overwrite: Replace what an earlier demo left in ``out``.
        steps: Optimizer steps of each job in place of the demo's own numbers.
        report: Called with what is being done, and how much of it.

    Raises:
        OutputExistsError: ``out`` holds an earlier demo and ``overwrite`` is False.
        OutputError: ``out`` cannot be written.
    """
    folder = Path(out)
    summary = folder / "summary.json"
    there = [folder / name for name in (summary.name, *DEMOS) if (folder / name).exists()]
    if there and not overwrite:
        raise OutputExistsError(
            f"{there[0]}: exists already, perhaps of an earlier demo; choose another folder with "
            "-o, or pass --overwrite"
        )
    results = [
        _run(name, demo, folder / name, steps or demo.steps, report) for name, demo in DEMOS.items()
    ]
    with PendingOutput(summary, overwrite=True) as pending:
        text = json.dumps([result.as_json() for result in results], indent=2)
        with writing(summary):
            pending.main.write_text(text + "\n")
        pending.commit()
    return results


def _run(name: str, demo: Demo, folder: Path, steps: int, report: Report | None) -> DemoResult:
    def telling(what: str) -> Callable[[int, int], None] | None:
        return None if report is None else lambda done, total: report(what, done, total)

    started = time.monotonic()
    spec = load_spec(bundled_spec(demo.spec))
    plan = make_plan(
        spec, patch=demo.patch, batch_size=demo.batch_size, steps=steps, augmentation="light"
    )
    model = FocalUNet.from_plan(spec, plan)
    # Whether an earlier demo may be replaced was asked above.
    run = train(model, spec, plan, folder, overwrite=True, progress=telling(f"{name}: training"))
    evaluation: Evaluation = evaluate(
        model,
        spec,
        "test",
        out=folder,
        overwrite=True,
        progress=telling(f"{name}: segmenting"),
    )
    matrices = {
        "segfocal": evaluation.matrix,
        "single pixels": single_pixel_classifier(spec, plan),
        "majority class": majority_class(spec, plan),
    }
    (labels,) = evaluation.labels.values()
    overlay = folder / "overlay.png"
    write_overlay(spec, labels, overlay, demo.headline, overwrite=True)
    return DemoResult(
        name, demo.headline, run.model, labels, overlay, matrices, time.monotonic() - started
    )
