"""Identity of scans: equal until one of their files changes."""

from __future__ import annotations

import hashlib
import os
import zipfile

import nibabel as nib
import numpy as np
import pytest
import rasterio
import rasterio.shutil

import segfocal as sf
from segfocal.io import identity as module
from segfocal.io import open_scan
from segfocal.io.identity import format_versions, scan_identity, unknown_files


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


def test_an_array_is_known_by_shape_but_not_by_content():
    found = scan_identity(sf.MemoryScan(np.zeros((2, 3, 1))))
    assert found["shape"] == [2, 3]
    assert unknown_files(found) == ["array"]


def test_versions_name_the_libraries():
    assert set(format_versions(2)) == {"rasterio", "GDAL"}
    assert set(format_versions(3)) == {"nibabel", "zlib"}


class Server:
    """Answers HEAD and GET with the headers and bytes that it is given; None refuses."""

    def __init__(self, monkeypatch, head, get=None, content=b""):
        self.answers = {"HEAD": head, "GET": get}
        self.content, self.asked = content, []
        monkeypatch.setattr("urllib.request.urlopen", self._answer)

    def _answer(self, request, timeout):
        self.asked.append((request.get_method(), request.full_url))
        self.headers = self.answers[request.get_method()]
        if self.headers is None:
            raise OSError("HTTP Error 405: Method Not Allowed")
        return self

    def read(self, size):
        return self.content[:size]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


URL = "https://host/a.tif"


def test_a_remote_file_is_known_by_what_its_server_says(monkeypatch):
    server = Server(monkeypatch, {"ETag": '"1"', "Content-Length": "7", "Server": "x"})
    for name in (URL, f"/vsicurl/{URL}", "/vsicurl?max_retry=2&url=https%3A%2F%2Fhost%2Fa.tif"):
        assert module._file_identity(name) == {"url": URL, "ETag": '"1"', "Content-Length": "7"}
    assert server.asked == [("HEAD", URL)] * 3


@pytest.mark.parametrize("head", [None, {"Content-Length": "700000"}])
def test_a_server_that_refuses_head_is_asked_for_the_first_bytes(monkeypatch, head):
    content = bytes(range(256)) * 300
    part = {"Content-Range": "bytes 0-65535/700000", "Content-Length": "65536"}
    server = Server(monkeypatch, head, part, content)
    first = module._file_identity(URL)
    assert server.asked == [("HEAD", URL), ("GET", URL)]
    assert first == {
        "url": URL,
        "Content-Length": "700000",
        "head": hashlib.sha256(content[:65536]).hexdigest(),
    }
    server.content = b"x" + content[1:]
    assert module._file_identity(URL) != first
    server.answers["GET"] = {"Last-Modified": "then"}
    assert module._file_identity(URL)["Last-Modified"] == "then"


@pytest.mark.parametrize("get", [None, {"Server": "x"}])
def test_what_no_server_speaks_for_is_unknown(monkeypatch, get):
    Server(monkeypatch, None, get, b"something")
    assert module._file_identity(URL) == {"url": URL, "unknown": True}


@pytest.mark.parametrize(
    "name",
    ["/vsis3/bucket/a.tif", "/vsizip//vsigs/bucket/a.zip/a.tif", "/vsimem/a.tif", "WMS:https://x/"],
)
def test_what_only_gdal_can_reach_is_unknown(name):
    identity = {"files": [module._file_identity(name), {"name": "here"}]}
    assert unknown_files(identity) == [name]


def test_names_that_stand_for_a_file(write_tif, tmp_path):
    path = write_tif(np.ones((1, 8, 12), np.uint8))
    length = path.stat().st_size
    for name in (f"GTIFF_DIR:1:{path}", f"/vsisubfile/0_{length},{path}", f"vrt://{path}?bands=1"):
        before = identity(name)
        assert unknown_files(before) == [], name
        touch(path)
        assert identity(name) != before, name


def test_a_description_of_a_service_is_unknown_though_it_is_a_file(tmp_path):
    (tmp_path / "wms.xml").write_text("<GDAL_WMS><ServerUrl>https://host/</ServerUrl></GDAL_WMS>")
    name = str(tmp_path / "wms.xml")
    assert unknown_files({"files": [module._file_identity(name)]}) == [name]


def test_sources_count_whatever_the_vrts_are_called(write_tif, tmp_path):
    write_tif(np.zeros((1, 8, 12), np.uint8), name="deep.tif")
    rasterio.shutil.copy(tmp_path / "deep.tif", tmp_path / "inner.vrt", driver="VRT")
    text = (tmp_path / "inner.vrt").read_text()
    (tmp_path / "inner.xml").write_text(text)
    (tmp_path / "outer.vrt").write_text(text.replace("deep.tif", "inner.xml"))
    before = identity(tmp_path / "outer.vrt")
    assert [os.path.basename(file["path"]) for file in before["files"]] == [
        "outer.vrt",
        "inner.xml",
        "deep.tif",
    ]
    touch(tmp_path / "deep.tif")
    assert identity(tmp_path / "outer.vrt") != before
