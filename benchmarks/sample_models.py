"""Small models trained on the bundled samples: what the benchmarks compare.

A model is trained as the demo trains it, with another seed or another network, and is kept in
a folder; a benchmark that was stopped finds it there and goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

import segfocal as sf
from segfocal.data.plan import Plan
from segfocal.data.spec import DatasetSpec
from segfocal.demonstration import DEMOS, bundled_spec

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """One of the demo's two jobs, with a seed.

    Attributes:
        name: ``"scene"`` (North Carolina) or ``"volume"`` (Spine).
        seed: Seed of weights, patches and augmentation.
        steps: Optimizer steps; left out, as many as the demo's.
        folder: Where models are kept.
    """

    name: str
    seed: int
    folder: Path
    steps: int | None = None

    @property
    def spec(self) -> DatasetSpec:
        """The dataset."""
        return sf.load_spec(bundled_spec(DEMOS[self.name].spec))

    @property
    def key(self) -> str:
        """What tells this job's results from those of others."""
        return f"{self.name}-{self.steps or DEMOS[self.name].steps}-{self.seed}"

    def plan(self) -> Plan:
        """Return the demo's plan with this job's seed."""
        demo = DEMOS[self.name]
        return sf.make_plan(
            self.spec,
            patch=demo.patch,
            batch_size=demo.batch_size,
            steps=self.steps or demo.steps,
            seed=self.seed,
        )

    def trained(self, network: str, build: Callable[[Plan], Any]) -> Any:
        """Return a trained model, from the folder when it is there.

        Args:
            network: Name under which it is kept.
            build: Makes the untrained model of a plan.
        """
        plan = self.plan()
        keras.utils.set_random_seed(plan.seed)
        model = build(plan)
        run = self.folder / f"{self.key}-{network}"
        if not (run / "model.keras").exists():
            print(f"training {run.name}", flush=True)
            sf.train(model, self.spec, plan, run, overwrite=True)
        else:
            model.load_weights(run / "model.keras")
        return model
