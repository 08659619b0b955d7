from __future__ import annotations

import numpy as np
import pytest

import segfocal.data.open_scans as module
from segfocal.data.open_scans import OpenScans
from segfocal.data.spec import DatasetSpec


def test_no_more_files_are_open_than_allowed(monkeypatch, tmp_path):
    opened = []

    class Fake:
        def __init__(self, path):
            self.path, self.closed = path, False
            opened.append(self)

        def close(self):
            self.closed = True

    monkeypatch.setattr(module, "open_scan", lambda path, orientation: Fake(path))
    monkeypatch.setattr(module, "LIMIT", 3)
    spec = DatasetSpec.model_validate(
        {
            "name": "made",
            "ndim": 2,
            "channels": ["x"],
            "classes": [{"value": v, "name": f"c{v}", "color": [0, 0, 0]} for v in (0, 1)],
            "cases": [{"id": str(n), "image": f"{n}.tif", "labels": "y.tif"} for n in range(8)],
            "splits": {"train": [{"case": "0"}]},
        }
    ).located(tmp_path)
    scans = OpenScans(spec)
    order = np.random.default_rng(0).integers(0, 8, 200)
    for number in order:
        assert scans.image(spec.cases[number]).path == str(tmp_path / f"{number}.tif")
        assert sum(not scan.closed for scan in opened) <= 3
    again = scans.image(spec.cases[order[-1]])
    assert again is scans.image(spec.cases[order[-1]]), "the last one used stays open"
    scans.close()
    assert all(scan.closed for scan in opened)
    with pytest.raises(ValueError, match="read after the dataset was closed"):
        scans.image(spec.cases[1])
