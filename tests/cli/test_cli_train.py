"""``segfocal train``: what its options lead to before anything is computed."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import yaml
from click.testing import CliRunner
from rasterio.transform import Affine

from segfocal.cli import segfocal
from segfocal.demonstration import bundled_spec

SPEC = bundled_spec("nc_landcover.yaml")
SMALL = ("--steps", "2", "--patch", "32", "--batch-size", "1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--fold", "1"), "spec 'nc_landcover' has no folds; expected split_by: {folds: 5}"),
        (("--all-folds",), "spec 'nc_landcover' has no folds; expected split_by: {folds: 5}"),
        (("--fold", "1", "--all-folds"), "--fold and --all-folds: expected one of them"),
        (("--resume", "--overwrite"), "overwrite starts anew and resume goes on"),
        (("--patience", "3"), "no regions in split 'val': add them, or leave patience out"),
        (("--encoder", "no.keras"), "no.keras: no such file and no published encoder"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(tmp_path, options, message):
    arguments = ["train", str(SPEC), "-o", str(tmp_path / "run"), *SMALL, *options]
    done = CliRunner().invoke(segfocal, arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "next_error"),
    [
        (["plan", "SPEC", "-o", "PLAN", "--preset", "nano"], None),
        (["train", "SPEC", "-o", "RUN", "--plan", "no_plan.yaml"], "no_plan.yaml"),
        (["evaluate", "no.keras", "SPEC", "-o", "SCORES"], "no.keras"),
    ],
)
def test_the_data_may_lie_elsewhere_than_the_spec_says(tmp_path, command, next_error):
    (tmp_path / "moved").mkdir()
    for n in range(2):
        for name, high in (("scene", 200), ("labels", 2)):
            values = np.random.default_rng(n).integers(0, high, (64, 64)).astype("uint8")
            with rasterio.open(
                tmp_path / "moved" / f"{n}_{name}.tif", "w", driver="GTiff", height=64, width=64,
                count=1, dtype="uint8", transform=Affine(10, 0, 2e5 + n * 1e4, 0, -10, 4e6),
                crs="EPSG:32633",
            ) as out:  # fmt: skip
                out.write(values, 1)
    document = {
        "name": "made", "ndim": 2, "root": "gone", "channels": ["x"],
        "classes": [{"value": 0, "name": "other"}, {"value": 1, "name": "house"}],
        "pairing": {"image": "{n}_scene.tif", "labels": "{n}_labels.tif"},
        "split_by": {"ratio": {"train": 1, "test": 1}},
    }  # fmt: skip
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(document))
    names = {"SPEC": "spec.yaml", "PLAN": "plan.yaml", "RUN": "run", "SCORES": "scores"}
    arguments = [str(tmp_path / names[word]) if word in names else word for word in command]
    done = CliRunner().invoke(segfocal, arguments)
    assert done.exit_code == 2
    assert "gone: no such folder" in done.stderr
    done = CliRunner().invoke(segfocal, [*arguments, "--root", str(tmp_path / "moved")])
    if next_error is None:
        assert done.exit_code == 0, done.stderr
        assert (tmp_path / "plan.yaml").exists()
    else:  # the data is found, and the next thing that is missing is told
        assert done.exit_code == 2
        assert "no such folder" not in done.stderr
        assert next_error in done.stderr
