"""A disk that fills up at any moment: one line, nothing at the destination, continued later."""

from __future__ import annotations

import builtins
import errno
import os
import pathlib
import subprocess

import nibabel
import numpy as np
import pytest
import rasterio

import segfocal as sf
from segfocal.card import Card, Channel, LabelClass
from segfocal.errors import OutputError


class Stub:
    """Two classes by the sign of a wave of the first channel."""

    output_stride, hash, engine, batch_matters = 1, "stub", "numpy", False

    def __init__(self, ndim):
        self.ndim = ndim
        self.card = Card(
            ndim=ndim,
            channels=(Channel(name="a"),),
            classes=(
                LabelClass(value=3, name="low", color=(1, 2, 3)),
                LabelClass(value=4, name="high", color=(4, 5, 6)),
            ),
            tile=(64, 64) if ndim == 2 else (12, 12, 12),
            orientation="RAS" if ndim == 3 else None,
        )

    def __call__(self, values, valid):
        wave = 0.5 + 0.5 * np.sin(values[..., :1])
        return np.concatenate([wave, 1 - wave], -1)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    rng = np.random.default_rng(0)
    with rasterio.open(
        folder / "scene.tif", "w", driver="GTiff", width=90, height=130, count=1, dtype="uint8",
        crs="EPSG:32119", transform=rasterio.Affine(2, 0, 0, 0, -2, 0),
    ) as out:  # fmt: skip
        out.write(rng.integers(0, 9, (130, 90), np.uint8), 1)
    voxels = rng.integers(0, 9, (20, 25, 30)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / "volume.nii")
    return {
        "labels.tif": (folder / "scene.tif", 2),
        "labels.nii": (folder / "volume.nii", 3),
        "labels.nii.gz": (folder / "volume.nii", 3),
    }


NAMES = ["labels.tif", "labels.nii", "labels.nii.gz"]


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def attempt(*arguments):
    """Return the prediction, or the message of why there is none."""
    try:
        return sf.predict(*arguments)
    except OutputError as error:
        return str(error)


class FullDisk:
    """Lets so many writes of Python's pass, then the disk is full."""

    def __init__(self, monkeypatch, writes):
        self.left = writes
        self.failed = False
        opened = builtins.open

        def spend():
            self.left -= 1
            if self.left < 0:
                self.failed = True
                raise OSError(errno.ENOSPC, "No space left on device")

        def watched(path, mode="r", *arguments, **options):
            file = opened(path, mode, *arguments, **options)
            return Watched(file, spend) if set(mode) & set("wa+x") else file

        for module in ("segfocal.engine.scratch", "segfocal.engine.journal",
                       "segfocal.io.nifti_file", "segfocal.io.raw_volume"):  # fmt: skip
            monkeypatch.setattr(f"{module}.open", watched, raising=False)
        for owner, name in ((os, "fsync"), (os, "replace"), (os, "mkdir"),
                            (pathlib.Path, "write_text")):  # fmt: skip
            monkeypatch.setattr(owner, name, self.spending(getattr(owner, name), spend))

    @staticmethod
    def spending(call, spend):
        def spent(*arguments, **options):
            spend()
            return call(*arguments, **options)

        return spent


class Watched:
    """A file that may find the disk full at each write."""

    def __init__(self, file, spend):
        self._file, self._spend = file, spend

    def write(self, content):
        self._spend()
        return self._file.write(content)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *error):
        return self._file.__exit__(*error)


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_is_full_at_any_write(scans, tmp_path, name):
    scan, ndim = scans[name]
    expected = sf.predict(Stub(ndim), scan, tmp_path / name).sha256
    writes = failures = 0
    while True:
        folder = tmp_path / str(writes)
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            disk = FullDisk(patch, writes)
            found = attempt(Stub(ndim), scan, folder / name)
        if isinstance(found, str):
            failures += 1
            assert disk.failed
            assert "No space left" in found
            assert "\n" not in found
            # At the last renames the sidecars may stand already; the main file never does.
            assert name not in visible(folder)
        elif disk.failed:
            assert found.sha256 == expected  # a write that the result does not need
        else:
            break
        assert sf.predict(Stub(ndim), scan, folder / name).sha256 == expected
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
        writes += 1
    assert failures > 15


@pytest.fixture
def small_disk(tmp_path):
    """Return a function that mounts a disk of so many bytes."""
    mounted = []

    def mount(size):
        place = tmp_path / f"disk{size}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("only root may mount a small disk")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no tmpfs")
@pytest.mark.parametrize("name", NAMES)
def test_a_small_disk(scans, small_disk, tmp_path, name, monkeypatch):
    monkeypatch.setattr("segfocal.io.pending.PendingOutput.require_space", lambda *given: None)
    scan, ndim = scans[name]
    expected = sf.predict(Stub(ndim), scan, tmp_path / name).sha256
    outcomes = []
    for pages in (*range(1, 24, 2), 32, 64, 512):
        disk = small_disk(4096 * pages)
        found = attempt(Stub(ndim), scan, disk / name)
        outcomes.append(not isinstance(found, str))
        if isinstance(found, str):
            assert "\n" not in found
            assert visible(disk) == []
        else:
            assert found.sha256 == expected
    assert not outcomes[0]
    assert outcomes[-1]
    assert outcomes.count(False) > 3
    assert outcomes == sorted(outcomes)
