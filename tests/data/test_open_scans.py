from __future__ import annotations

import numpy as np
import pytest

import segfocal.data.open_scans as module
from segfocal.data.open_scans import OpenScans


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
    scans = OpenScans("RAS")
    order = np.random.default_rng(0).integers(0, 8, 200)
    for number in order:
        assert scans.get(tmp_path / str(number)).path == tmp_path / str(number)
        assert sum(not scan.closed for scan in opened) <= 3
    again = scans.get(tmp_path / str(order[-1]))
    assert again is scans.get(tmp_path / str(order[-1])), "the last one used stays open"
    scans.close()
    assert all(scan.closed for scan in opened)
    with pytest.raises(ValueError, match="read after the dataset was closed"):
        scans.get(tmp_path / "1")
