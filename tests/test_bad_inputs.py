"""Input that nobody planned for: one clear line, exit code 2, nothing at the destination."""

from __future__ import annotations

import gzip
import json
import re
import struct
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from rasterio.errors import NotGeoreferencedWarning

from segfocal.card import Card, Channel, LabelClass
from segfocal.cli import segfocal as command
from segfocal.engine import contexts
from segfocal.io import network

RNG = np.random.default_rng(0)


class Stub:
    """Two classes by the sign of a wave of the first channel."""

    output_stride, hash, engine, batch_matters = 16, "stub", "numpy", False

    def __init__(self, ndim: int, names: tuple[str, ...]) -> None:
        self.ndim = ndim
        self.card = Card(
            ndim=ndim,
            channels=tuple(Channel(name=name) for name in names),
            named_channels=True,
            classes=tuple(LabelClass(value=v, name=f"c{v}", color=(v, 0, 0)) for v in (3, 4)),
            tile=(32,) * ndim,
            orientation="RAS" if ndim == 3 else None,
        )

    def __call__(self, values, valid):
        wave = 0.5 + 0.5 * np.sin(values[..., :1])
        return np.concatenate([wave, 1 - wave], -1)


SCENES = {"scene.stub": Stub(2, ("red", "nir")), "volume.stub": Stub(3, ("ct",))}


class Case(NamedTuple):
    """What makes the input in a folder, what the line says, and options of the command."""

    make: Callable[[Path], object]
    says: str
    options: tuple[str, ...] = ()
    model: str = "scene.stub"
    output: str = "out/labels.tif"


def tif(folder: Path, array: np.ndarray | None = None, **options: object) -> Path:
    array = RNG.integers(1, 200, (2, 60, 70), np.uint8) if array is None else array
    settings: dict[str, object] = {
        "driver": "GTiff", "count": len(array), "height": array.shape[1], "width": array.shape[2],
        "dtype": array.dtype, "crs": "EPSG:32633",
        "transform": rasterio.Affine(10, 0, 500000, 0, -10, 4000000),
    }  # fmt: skip
    with (
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        rasterio.open(folder / "scene.tif", "w", **{**settings, **options}) as target,
    ):
        target.write(array)
    return folder / "scene.tif"


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def huge_header(folder: Path, rows: int, cols: int) -> Path:
    """A TIFF of some hundred bytes that says it has so many rows and columns."""
    path = tif(folder, np.zeros((2, 8, 8), np.uint8), interleave="band")
    content = bytearray(path.read_bytes())
    (offset,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, offset)
    for entry in range(offset + 2, offset + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from("<H", content, entry)
        if tag in (256, 257):
            struct.pack_into("<HHII", content, entry, tag, 4, 1, cols if tag == 256 else rows)
    return written(path, bytes(content))


def named(folder: Path, *names: str) -> Path:
    path = tif(folder, np.ones((len(names), 40, 40), np.uint8))
    with rasterio.open(path, "r+") as target:
        target.descriptions = names
    return path


def vrt(folder: Path, source: str, kind: str = "", extra: str = "") -> Path:
    return written(
        folder / "scene.vrt",
        '<VRTDataset rasterXSize="70" rasterYSize="60">'
        + "".join(
            f'<VRTRasterBand dataType="Byte" band="{band}" {kind}>{extra}<SimpleSource>'
            f'<SourceFilename relativeToVRT="1">{source}</SourceFilename>'
            f"<SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
            for band in (1, 2)
        )
        + "</VRTDataset>",
    )


def python_vrt(folder: Path) -> Path:
    tif(folder)
    code = (
        "<PixelFunctionType>run</PixelFunctionType>"
        "<PixelFunctionLanguage>Python</PixelFunctionLanguage>"
        "<PixelFunctionCode><![CDATA[\ndef run(a, out, *r, **o):\n    out[:] = 1\n]]>"
        "</PixelFunctionCode>"
    )
    return vrt(folder, "scene.tif", 'subClass="VRTDerivedRasterBand"', code)


def nii(
    folder: Path,
    array: np.ndarray | None = None,
    affine: np.ndarray | None = None,
    **fields: object,
) -> Path:
    array = RNG.integers(0, 90, (33, 20, 21)).astype(np.int16) if array is None else array
    image = nib.Nifti1Image(array, np.eye(4) if affine is None else affine)
    path = folder / "scan.nii"
    nib.save(image, path)
    if fields:
        header = image.header.copy()
        for name, value in fields.items():
            header[name] = value
        content = path.read_bytes()
        path.write_bytes(header.binaryblock + content[348:])
    return path


def packed(path: Path, share: float = 1.0, damage: bool = False) -> Path:
    content = bytearray(gzip.compress(path.read_bytes()))
    if damage:
        middle = len(content) // 2
        content[middle : middle + 40] = bytes(40)
    return written(path.with_name("scan.nii.gz"), bytes(content[: int(len(content) * share)]))


def volume(make: Callable[[Path], object], says: str, *options: str) -> Case:
    return Case(make, says, options, "volume.stub", "out/labels.nii.gz")


CASES = {
    # Scenes.
    "missing": Case(lambda f: f / "no such.tif", "no such file"),
    "folder": Case(lambda f: f, "expected a file as INPUT"),
    "zero bytes": Case(lambda f: written(f / "a.tif", b""), "the file is empty"),
    "text": Case(lambda f: written(f / "a.tif", "hello"), "not a raster that GDAL can open"),
    "only a header": Case(lambda f: cut(tif(f), 0.01), "not a raster that GDAL can open"),
    "truncated": Case(lambda f: cut(tif(f, compress=None), 0.6), "truncated, damaged or gone"),
    "truncated tiles": Case(
        lambda f: cut(tif(f, tiled=True, blockxsize=16, blockysize=16, compress="lzw"), 0.5),
        "expected a GeoTIFF|truncated, damaged or gone",
    ),
    "absurd size": Case(
        lambda f: huge_header(f, 2**31 - 1, 2**31 - 1), "about .* MB are needed and .* are free"
    ),
    "absurd width": Case(lambda f: huge_header(f, 1, 2**28), "truncated, damaged or gone"),
    "absurd width in strips": Case(
        lambda f: huge_header(f, 1, 2**28), "truncated, damaged|too little", ("--max-memory", "4GB")
    ),
    "absurd height": Case(lambda f: huge_header(f, 2**28, 1), "truncated, damaged or gone"),
    "three bands for two": Case(
        lambda f: tif(f, np.ones((3, 40, 40), np.uint8)),
        "has 3 channels; the model expects 2 channels",
    ),
    "one band for two": Case(
        lambda f: tif(f, np.ones((1, 40, 40), np.uint8)), "has 1 channel; the model expects 2"
    ),
    "other names": Case(lambda f: named(f, "red", "green", "blue"), "nir is missing"),
    "all NaN": Case(
        lambda f: tif(f, np.full((2, 40, 40), np.nan, np.float32)), "no pixel is valid"
    ),
    "all nodata": Case(
        lambda f: tif(f, np.full((2, 40, 40), 7, np.uint8), nodata=7), "no pixel is valid"
    ),
    "complex": Case(lambda f: tif(f, np.ones((2, 9, 9), np.complex64)), "complex values"),
    "a VRT of itself": Case(
        lambda f: vrt(f, "scene.vrt"), "Recursion detected: .* among its own sources"
    ),
    "a VRT of nothing": Case(lambda f: vrt(f, "gone.tif"), "gone.tif"),
    "a VRT with Python": Case(python_vrt, "Python"),
    "a broken VRT": Case(lambda f: written(f / "a.vrt", "<VRTDataset"), "not a raster"),
    "remote": Case(
        lambda f: "https://example.org/scene.tif", "only local files may be read", ("--local-only",)
    ),
    "remote inside": Case(
        lambda f: vrt(f, "/vsicurl/https://example.org/a.tif"),
        "refers to .*only local files may be read",
        ("--local-only",),
    ),
    "a volume for a scene model": Case(nii, "has 1 channel; the model expects 2 channels"),
    "two files of two places": Case(
        lambda f: tif(f, np.ones((1, 60, 70), np.uint8)),
        "expected files of one place",
        ("--channels-from", "elsewhere.tif"),
    ),
    # Volumes.
    "truncated volume": volume(lambda f: cut(nii(f), 0.5), "the file is truncated"),
    "header only": volume(lambda f: cut(nii(f), 0.005), "not a volume|truncated"),
    "truncated gzip": volume(lambda f: packed(nii(f), 0.6), "truncated, damaged or gone"),
    "corrupt gzip": volume(
        lambda f: packed(nii(f), damage=True), "truncated, damaged or gone|data is damaged"
    ),
    "no gzip": volume(
        lambda f: written(f / "scan.nii.gz", nii(f).read_bytes()), "is no gzip file|cannot read"
    ),
    "zero voxels": volume(
        lambda f: nii(f, dim=[3, 0, 20, 21, 1, 1, 1, 1]), "expected at least one voxel|not a volume"
    ),
    "two axes": volume(lambda f: nii(f, np.zeros((9, 9), np.uint8)), "expected a volume of three"),
    "five axes": volume(
        lambda f: nii(f, np.zeros((4, 4, 4, 2, 3), np.uint8)), r"expected \(x, y, z\)"
    ),
    "affine NaN": volume(
        lambda f: nii(f, srow_x=[np.nan, 0, 0, 0], sform_code=1), "unusable affine"
    ),
    "spacing zero": volume(
        lambda f: nii(f, pixdim=[1, 0, 1, 1, 1, 1, 1, 1], sform_code=0, qform_code=0),
        "unusable affine|not a volume",
    ),
    "spacing NaN": volume(
        lambda f: nii(f, pixdim=[1, 1, np.nan, 1, 1, 1, 1, 1], sform_code=0, qform_code=1),
        "unusable affine|not a volume",
    ),
    "modalities of two places": volume(
        nii, "expected modalities of one patient", "--channels-from", "far/scan.nii"
    ),
    "a modality too many": volume(
        nii, "has 2 channels; the model expects 1", "--channels-from", "near/pet.nii"
    ),
    "holes without a background": volume(
        nii, "no class of the model has value 0", "--fill-holes", "all"
    ),
    "slices of a volume model": volume(nii, "leave it out", "--slice-axis", "axial"),
    "affine flat": volume(lambda f: nii(f, srow_y=[1, 0, 0, 0], sform_code=1), "unusable affine"),
    "two modalities for one": volume(
        lambda f: nii(f, np.zeros((9, 9, 9, 2), np.uint8)), "has 2 channels; the model expects 1"
    ),
    "colours": volume(
        lambda f: nii(f, np.zeros((9, 9, 9), [("R", "u1"), ("G", "u1"), ("B", "u1")])), "type RGB"
    ),
    "complex voxels": volume(lambda f: nii(f, np.ones((9, 9, 9), np.complex64)), "type complex64"),
    "NaN only": volume(
        lambda f: nii(f, np.full((9, 9, 9), np.nan, np.float32)), "no pixel is valid"
    ),
    "an image without its header": volume(
        lambda f: written(f / "scan.img", b"\0" * 999), "not a|no such"
    ),
    "a scene for a volume model": volume(tif, "2 spatial axes; the model works on 3"),
    # Numbers and places.
    "tile": Case(tif, "no multiple of the network's output_stride 16", ("--tile", "40")),
    "overlap": Case(tif, "leaves a stride of", ("--overlap", "32")),
    "halo": Case(tif, "leaves a stride of", ("--halo", "16", "--overlap", "0")),
    "three sides": Case(tif, "expected one or 2", ("--tile", "32,32,32")),
    "memory in words": Case(tif, "expected bytes, or a number with", ("--max-memory", "plenty")),
    "too little memory": Case(tif, "allow more memory", ("--max-memory", "1MB")),
    "no folder": Case(tif, "does not exist", output="out/no/labels.tif"),
    "another suffix": Case(tif, "expected .tif or .tiff", output="out/labels.png"),
    "a volume's suffix": Case(tif, "expected .tif or .tiff", output="out/labels.nii.gz"),
    "rotations of flat tiles": Case(
        tif, "as wide as high", ("--tta", "rotations", "--tile", "32,64")
    ),
}


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the command take the stubs for models; none of the cases needs a real one."""

    def load(path: str | Path) -> Stub:
        return SCENES[Path(path).name]

    def forbid() -> None:
        monkeypatch.setattr(network, "_forbidden", True)

    monkeypatch.setenv("SEGFOCAL_ENGINE", "keras")
    monkeypatch.setattr(contexts, "load_model", load)
    monkeypatch.setattr("segfocal.forbid_network", forbid, raising=False)
    monkeypatch.chdir(tmp_path)
    far = rasterio.Affine(10, 0, 900000, 0, -10, 4000000)
    (tmp_path / "far").mkdir()
    tif(tmp_path / "far", np.ones((1, 60, 70), np.uint8), transform=far).rename("elsewhere.tif")
    nii(tmp_path / "far", affine=np.diag([1.0, 1, 1, 1]) + np.eye(4, k=3) * 900)
    (tmp_path / "near").mkdir()
    nii(tmp_path / "near").rename(tmp_path / "near" / "pet.nii")
    (tmp_path / "out").mkdir()


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_clear_line(name: str, stubs: None, tmp_path: Path) -> None:
    case = CASES[name]
    source = case.make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    arguments = ["predict", case.model, str(source), "-o", case.output, *case.options]
    begun = time.process_time()
    done = CliRunner().invoke(command, arguments)
    assert time.process_time() - begun < 20
    assert done.exit_code == 2, (done.output, done.exception)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("segfocal: warning")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("segfocal: error: ")
    assert re.search(case.says, lines[0]), lines[0]
    assert 30 < len(lines[0]) < 600
    assert done.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_the_stubs_work_on_good_input(stubs: None, tmp_path: Path) -> None:
    for model, source, output in (
        ("scene.stub", tif(tmp_path), "out/labels.tif"),
        ("volume.stub", nii(tmp_path), "out/labels.nii.gz"),
    ):
        done = CliRunner().invoke(command, ["predict", model, str(source), "-o", output])
        assert done.exit_code == 0, done.output
        assert (tmp_path / output).is_file()


@pytest.mark.parametrize(
    "name", ["größe und weite.tif", "a;b & c'd\".tif", "new\nline.tif", "%s.tif"]
)
def test_odd_names_are_only_names(name: str, stubs: None, tmp_path: Path) -> None:
    source = tif(tmp_path).rename(tmp_path / name)
    done = CliRunner().invoke(command, ["predict", "scene.stub", str(source), "-o", f"out/{name}"])
    assert done.exit_code == 0, done.output
    provenance = json.loads((tmp_path / "out" / f"{name}.json").read_text())
    assert provenance["input"]["path"] == str(source)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.keras", b"", "expected a .keras file"),
        ("a.keras", b"PK\3\4 not really", "expected a .keras file"),
        ("a.onnx", b"\x08\x07garbage", "damaged or no ONNX model"),
        ("a.xml", b"<net></net>", "card"),
        ("a.h5", b"\x89HDF", "expected"),
        ("folder", None, "expected|is a folder"),
    ],
)
def test_files_that_are_no_model(
    name: str, content: bytes | None, says: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    scene = tif(tmp_path)
    done = CliRunner().invoke(
        command, ["predict", str(path), str(scene), "-o", str(tmp_path / "labels.tif")]
    )
    assert done.exit_code == 2, (done.output, done.exception)
    assert done.stderr.count("\n") == 1
    assert re.search(says, done.stderr), done.stderr
    assert not (tmp_path / "labels.tif").exists()
