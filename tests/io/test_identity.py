"""Identity of scans: equal until one of their files changes."""

from __future__ import annotations

import os
import zipfile

import nibabel as nib
import numpy as np
import pytest
import rasterio
import rasterio.shutil

import segfocal as sf
from segfocal.io import open_scan
from segfocal.io.identity import format_versions, scan_identity


def identity(path):
    with open_scan(path) as scan:
        return scan_identity(scan)


def touch(path):
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def change_head(path):
    """Change a byte and put the time back."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-1 if len(content) < 2**16 else 2**15] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [touch, change_head])
def test_a_scene_is_itself_until_it_changes(write_tif, change):
    path = write_tif(np.arange(96, dtype=np.uint8).reshape(1, 8, 12))
    before = identity(path)
    assert before == identity(path)
    assert before["path"] == str(path.absolute())
    change(path)
    assert identity(path) != before


def test_sources_of_nested_vrts_count(write_tif, tmp_path):
    write_tif(np.zeros((1, 8, 12), np.uint8), name="inner.tif")
    rasterio.shutil.copy(tmp_path / "inner.tif", tmp_path / "a.vrt", driver="VRT")
    outer = (tmp_path / "a.vrt").read_text().replace("inner.tif", "a.vrt")
    assert "a.vrt" in outer
    (tmp_path / "b.vrt").write_text(outer)
    before = identity(tmp_path / "b.vrt")
    assert len(before["files"]) == 3
    touch(tmp_path / "inner.tif")
    assert identity(tmp_path / "b.vrt") != before


def test_a_mask_beside_the_scene_counts(write_tif):
    path = write_tif(np.ones((1, 8, 12), np.uint8))
    before = identity(path)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as scene:
        scene.write_mask(np.zeros((8, 12), np.uint8))
    assert [os.path.basename(file["path"]) for file in identity(path)["files"]] == [
        "scene.tif",
        "scene.tif.msk",
    ]
    assert identity(path) != before


def test_both_files_of_a_pair_count(tmp_path):
    nib.save(nib.Nifti1Pair(np.zeros((3, 4, 5), np.int16), np.eye(4)), tmp_path / "a.img")
    before = identity(tmp_path / "a.hdr")
    assert len(before["files"]) == 2
    touch(tmp_path / "a.img")
    assert identity(tmp_path / "a.hdr") != before


def test_an_archive_stands_for_what_is_in_it(write_tif, tmp_path):
    path = write_tif(np.ones((1, 8, 12), np.uint8))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "inner/scene.tif")
    name = f"/vsizip/{tmp_path / 'a.zip'}/inner/scene.tif"
    before = identity(name)
    assert before["files"][0]["path"] == str(tmp_path / "a.zip")
    touch(tmp_path / "a.zip")
    assert identity(name) != before


def test_an_array_is_known_by_name_and_shape():
    assert scan_identity(sf.MemoryScan(np.zeros((2, 3, 1))))["shape"] == [2, 3]


def test_versions_name_the_libraries():
    assert set(format_versions(2)) == {"rasterio", "GDAL"}
    assert set(format_versions(3)) == {"nibabel", "zlib"}


def test_a_remote_file_is_known_by_what_its_server_says(monkeypatch):
    from segfocal.io import identity as module

    class Answer:
        def __init__(self):
            self.headers = {"ETag": '"1"', "Content-Length": "7", "Server": "x"}

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    asked = []

    def answer(request, timeout):
        asked.append((request.get_method(), request.full_url))
        return Answer()

    monkeypatch.setattr(module.urllib.request, "urlopen", answer)
    for name in ("https://host/a.tif", "/vsicurl/https://host/a.tif"):
        assert module._file_identity(name) == {
            "url": "https://host/a.tif",
            "ETag": '"1"',
            "Content-Length": "7",
        }
    assert asked == [("HEAD", "https://host/a.tif")] * 2

    def refuse(request, timeout):
        raise OSError("405")

    monkeypatch.setattr(module.urllib.request, "urlopen", refuse)
    assert module._file_identity("https://host/a.tif") == {"url": "https://host/a.tif"}
