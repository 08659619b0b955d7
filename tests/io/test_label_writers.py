"""Label writers: what goes in comes out, on the same grid, byte for byte the same each time."""

from __future__ import annotations

import hashlib
import json
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC

from segfocal.card import Card
from segfocal.errors import OutputError, ScanError
from segfocal.io import (
    LabelWriter,
    MemoryScan,
    PendingOutput,
    Scan,
    geotiff_writer,
    open_label_writer,
    open_scan,
    read_labels,
)
from segfocal.types import Window, full_window

Write = Callable[..., Path]
SHAPE = (701, 1150)


def draw(shape: tuple[int, ...], values: tuple[int, ...] = (0, 1, 3, 255)) -> np.ndarray:
    rng = np.random.default_rng(3)
    return np.array(values)[rng.integers(0, len(values), shape)]


def bands(shape: tuple[int, ...], height: int) -> list[Window]:
    return [
        (slice(top, min(top + height, shape[0])), *(slice(0, side) for side in shape[1:]))
        for top in range(0, shape[0], height)
    ]


def boxes(shape: tuple[int, ...], side: int, seed: int = 0) -> list[Window]:
    """Boxes that partition the grid, in random order."""
    parts: list[Window] = [()]
    for length in shape:
        parts = [
            (*part, slice(start, min(start + side, length)))
            for part in parts
            for start in range(0, length, side)
        ]
    return [parts[i] for i in np.random.default_rng(seed).permutation(len(parts))]


def save(
    destination: Path, scan: Scan, card: Card, labels: np.ndarray, windows: list[Window]
) -> LabelWriter:
    with PendingOutput(destination, overwrite=True) as pending:
        writer = open_label_writer(pending, scan, card)
        for window in windows:
            writer.write(window, labels[window])
        writer.finish()
        pending.commit()
    return writer


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("grid", ["north_up", "south_up", "rotated", "none"])
def test_geotiff_round_trip(
    write_tif: Write, tmp_path: Path, card: Card, grids: SimpleNamespace, grid: str
) -> None:
    crs = None if grid == "none" else "EPSG:32633"
    source = write_tif(np.zeros((1, *SHAPE), np.uint8), crs=crs, transform=getattr(grids, grid))
    labels = draw(SHAPE)
    with open_scan(source) as scan:
        writer = save(tmp_path / "labels.tif", scan, card, labels, bands(SHAPE, 77))
    assert (writer.dtype, writer.nodata) == (np.uint8, 255)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        given, output = rasterio.open(source), rasterio.open(tmp_path / "labels.tif")
    with given, output:
        assert output.crs == given.crs
        assert output.transform == given.transform
        assert output.shape == SHAPE
        assert output.dtypes == ("uint8",)
        assert output.nodata == 255
        assert output.descriptions == ("class",)
        assert output.overviews(1) == [2, 4]
        assert set(np.unique(output.read(1, out_shape=(100, 100)))) <= {0, 1, 3, 255}
        assert output.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert output.tags()["TIFFTAG_SOFTWARE"] == "segfocal"
        assert json.loads(output.tags()["CLASS_NAMES"]) == {
            "0": "water & <ice>",
            "1": "forêt",
            "3": 'town "A"',
        }
        palette = output.colormap(1)
        assert [palette[value] for value in (0, 1, 3, 255)] == [
            (0, 0, 0, 255),
            (10, 20, 30, 255),
            (20, 40, 60, 255),
            (0, 0, 0, 0),
        ]
        in_file = labels[::-1] if grid == "south_up" else labels
        np.testing.assert_array_equal(output.read(1), in_file)
    sidecar = ElementTree.parse(tmp_path / "labels.tif.aux.xml")
    categories = [item.text or "" for item in sidecar.iter("Category")]
    assert categories == ["water & <ice>", "forêt", "", 'town "A"']
    with open_scan(tmp_path / "labels.tif") as again:
        values, valid = read_labels(again, full_window(SHAPE))
    np.testing.assert_array_equal(valid, labels != 255)
    np.testing.assert_array_equal(values, np.where(valid, labels, 0))


@pytest.mark.parametrize("side", [100, 257, 512, 2000])
@pytest.mark.parametrize("buffer", [0, geotiff_writer.BUFFER_BYTES])
def test_geotiff_bytes_do_not_depend_on_windows(
    write_tif: Write,
    tmp_path: Path,
    card: Card,
    monkeypatch: pytest.MonkeyPatch,
    side: int,
    buffer: int,
) -> None:
    monkeypatch.setattr(geotiff_writer, "BUFFER_BYTES", buffer)
    labels = draw(SHAPE)
    with open_scan(write_tif(np.zeros((1, *SHAPE), np.uint8))) as scan:
        save(tmp_path / "a.tif", scan, card, labels, bands(SHAPE, SHAPE[0]))
        save(tmp_path / "b.tif", scan, card, labels, boxes(SHAPE, side))
    assert digest(tmp_path / "a.tif") == digest(tmp_path / "b.tif")
    with rasterio.open(tmp_path / "b.tif") as output:
        np.testing.assert_array_equal(output.read(1), labels)


def test_a_plain_tiled_geotiff_by_choice(write_tif: Write, tmp_path: Path, card: Card) -> None:
    labels = draw(SHAPE)
    tags = {"SEGFOCAL_MODEL": "abc", "NOTE": "ü"}
    for name, windows in (("a.tif", bands(SHAPE, 77)), ("b.tif", boxes(SHAPE, 200))):
        with (
            open_scan(write_tif(np.zeros((1, *SHAPE), np.uint8))) as scan,
            PendingOutput(tmp_path / name) as pending,
        ):
            writer = open_label_writer(pending, scan, card, layout="gtiff", tags=tags)
            for window in windows:
                writer.write(window, labels[window])
            writer.finish()
            pending.commit()
    assert digest(tmp_path / "a.tif") == digest(tmp_path / "b.tif")
    with rasterio.open(tmp_path / "a.tif") as output:
        assert output.driver == "GTiff"
        assert (output.profile["tiled"], output.block_shapes) == (True, [(512, 512)])
        assert output.overviews(1) == []
        assert "LAYOUT" not in output.tags(ns="IMAGE_STRUCTURE")
        assert output.tags()["SEGFOCAL_MODEL"] == "abc"
        assert output.tags()["NOTE"] == "ü"
        assert output.colormap(1)[3] == (20, 40, 60, 255)
        np.testing.assert_array_equal(output.read(1), labels)
    sidecar = ElementTree.parse(tmp_path / "a.tif.aux.xml")
    assert [item.text or "" for item in sidecar.iter("Category")][1] == "forêt"
    with (
        PendingOutput(tmp_path / "c.tif") as pending,
        pytest.raises(OutputError, match=r"layout 'zip'; expected one of cog, gtiff"),
    ):
        open_label_writer(pending, MemoryScan(np.zeros((9, 9, 1))), card, layout="zip")  # type: ignore[arg-type]


def test_class_values_from_255_take_uint16(
    write_tif: Write, tmp_path: Path, make_card: Callable[..., Card]
) -> None:
    labels = draw((60, 70), (0, 255, 1000, 65535))
    with open_scan(write_tif(np.zeros((1, 60, 70), np.uint8))) as scan:
        writer = save(
            tmp_path / "l.tif", scan, make_card(0, 255, 1000), labels, boxes((60, 70), 33)
        )
    assert (writer.dtype, writer.nodata) == (np.uint16, 65535)
    with rasterio.open(tmp_path / "l.tif") as output:
        assert output.nodata == 65535
        assert output.dtypes == ("uint16",)
        assert output.colormap(1)[1000] == (20, 40, 60, 255)
        assert output.colormap(1)[65535] == (0, 0, 0, 0)
        np.testing.assert_array_equal(output.read(1), labels)
    categories = list(ElementTree.parse(tmp_path / "l.tif.aux.xml").iter("Category"))
    assert (categories[255].text, categories[1000].text) == ("forêt", 'town "A"')
    with (
        open_scan(tmp_path / "scene.tif") as scan,
        PendingOutput(tmp_path / "m.tif") as pending,
        pytest.raises(OutputError, match="class value 65535 is the nodata value"),
    ):
        open_label_writer(pending, scan, make_card(0, 65535))


def test_ground_control_points_rpcs_and_pixel_is_point(
    write_tif: Write, tmp_path: Path, card: Card
) -> None:
    labels = draw((40, 50))
    blank = np.zeros((1, 40, 50), np.uint8)
    points = [
        GroundControlPoint(row=r, col=c, x=10 + c / 50 + r / 999, y=50 - r / 40, z=0, id=str(i))
        for i, (r, c) in enumerate([(0, 0), (0, 50), (40, 0), (40, 50)])
    ]
    write_tif(blank, "gcps.tif", crs="EPSG:4326", transform=None, gcps=points)
    numbers = [float(i) for i in range(20)]
    rpcs = RPC(
        height_off=1.0, height_scale=2.0, lat_off=3.0, lat_scale=4.0, line_den_coeff=numbers,
        line_num_coeff=numbers, line_off=5.0, line_scale=6.0, long_off=7.0, long_scale=8.0,
        samp_den_coeff=numbers, samp_num_coeff=numbers, samp_off=9.0, samp_scale=10.0,
        err_bias=0.5, err_rand=0.25,
    )  # fmt: skip
    write_tif(blank, "rpcs.tif", crs=None, transform=None, rpcs=rpcs)
    with rasterio.open(write_tif(blank, "point.tif"), "r+") as target:
        target.update_tags(AREA_OR_POINT="Point")
    for name in ("gcps", "rpcs", "point"):
        with open_scan(tmp_path / f"{name}.tif") as scan:
            save(tmp_path / f"{name}-labels.tif", scan, card, labels, bands((40, 50), 7))
        with (
            rasterio.open(tmp_path / f"{name}.tif") as given,
            rasterio.open(tmp_path / f"{name}-labels.tif") as output,
        ):
            for ours, theirs in zip(output.gcps[0], given.gcps[0], strict=True):
                assert ours.id == theirs.id
                for side in ("row", "col", "x", "y", "z"):  # a VRT on the way holds 13 digits
                    assert getattr(ours, side) == pytest.approx(getattr(theirs, side), rel=1e-12)
            assert len(output.gcps[0]) == (4 if name == "gcps" else 0)
            assert output.gcps[1] == given.gcps[1]
            assert (output.rpcs is None) is (name != "rpcs")
            if name == "rpcs":
                assert output.rpcs.to_dict() == given.rpcs.to_dict() == rpcs.to_dict()
            assert output.transform == given.transform
            assert output.tags().get("AREA_OR_POINT") == given.tags().get("AREA_OR_POINT")
            np.testing.assert_array_equal(output.read(1), labels)


def test_arrays_in_memory_get_files_without_georeference(tmp_path: Path, card: Card) -> None:
    labels = draw((40, 50))
    save(
        tmp_path / "a.tiff",
        MemoryScan(np.zeros((40, 50, 1))),
        card,
        labels,
        [full_window((40, 50))],
    )
    with open_scan(tmp_path / "a.tiff") as again:
        assert again.resolution is None
        np.testing.assert_array_equal(
            read_labels(again, (slice(0, 40), slice(0, 50)))[1], labels != 255
        )


def test_the_cog_is_valid(write_tif: Write, tmp_path: Path, card: Card) -> None:
    cogeo = pytest.importorskip("rio_cogeo.cogeo")
    with open_scan(write_tif(np.zeros((1, *SHAPE), np.uint8))) as scan:
        save(tmp_path / "labels.tif", scan, card, draw(SHAPE), bands(SHAPE, 100))
    assert cogeo.cog_validate(tmp_path / "labels.tif", quiet=True) == (True, [], [])


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("l.nii", (4, 5), r"\.tif or \.tiff, as array is a scene"),
        ("l.png", (4, 5), r"\.tif or \.tiff"),
        ("l", (4, 5), r"\.tif or \.tiff"),
        ("l.tif", (4, 5, 6), r"\.nii or \.nii\.gz, as array is a volume"),
        ("l.gz", (4, 5, 6), r"\.nii or \.nii\.gz"),
    ],
)
def test_suffixes_that_do_not_fit(
    tmp_path: Path, card: Card, name: str, shape: tuple[int, ...], expected: str
) -> None:
    with PendingOutput(tmp_path / name) as pending, pytest.raises(OutputError, match=expected):
        open_label_writer(pending, MemoryScan(np.zeros((*shape, 1))), card)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "shape"), [("l.tif", (40, 50)), ("l.nii", (10, 11, 12)), ("l.nii.gz", (10, 11, 12))]
)
class TestEveryWriter:
    """What all writers refuse and leave behind."""

    def test_a_failed_run_leaves_nothing(
        self, tmp_path: Path, card: Card, name: str, shape: tuple[int, ...]
    ) -> None:
        def fail() -> None:
            with PendingOutput(tmp_path / name) as pending:
                writer = open_label_writer(pending, MemoryScan(np.zeros((*shape, 1))), card)
                writer.write(bands(shape, 6)[0], np.zeros((6, *shape[1:]), np.uint8))
                raise RuntimeError("killed")

        with pytest.raises(RuntimeError, match="killed"):
            fail()
        assert list(tmp_path.iterdir()) == []

    def test_missing_and_repeated_pixels(
        self, tmp_path: Path, card: Card, name: str, shape: tuple[int, ...]
    ) -> None:
        with PendingOutput(tmp_path / name) as pending:
            writer = open_label_writer(pending, MemoryScan(np.zeros((*shape, 1))), card)
            first, *rest = bands(shape, 6)
            labels = np.zeros(shape, np.uint8)
            for window in rest:
                writer.write(window, labels[window])
            with pytest.raises(OutputError, match="expected windows that cover the whole scan"):
                writer.finish()
            nothing = (slice(0, 0), *first[1:])
            writer.write(nothing, labels[nothing])
            writer.write(first, labels[first])
            with pytest.raises(ValueError, match="stand twice"):
                writer.write(first, labels[first])

    def test_values_that_do_not_fit(
        self, tmp_path: Path, card: Card, name: str, shape: tuple[int, ...]
    ) -> None:
        with PendingOutput(tmp_path / name) as pending:
            writer = open_label_writer(pending, MemoryScan(np.zeros((*shape, 1))), card)
            window = full_window(shape)
            with pytest.raises(ValueError, match="labels from 0 to 256; expected 0 to 255"):
                writer.write(window, draw(shape, (0, 256)))
            with pytest.raises(ValueError, match="labels from -1 to 3"):
                writer.write(window, draw(shape, (-1, 3)))
            with pytest.raises(ValueError, match="expected integers of shape"):
                writer.write(window, np.zeros(shape, np.float32))
            with pytest.raises(ValueError, match="expected integers of shape"):
                writer.write(window, np.zeros(shape[:-1], np.uint8))
            with pytest.raises(ValueError, match="not inside a scan"):
                writer.write((slice(0, 99), *window[1:]), np.zeros((99, *shape[1:]), np.uint8))

    def test_a_full_disk(
        self,
        tmp_path: Path,
        card: Card,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        shape: tuple[int, ...],
    ) -> None:
        import shutil

        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
        with (
            PendingOutput(tmp_path / name) as pending,
            pytest.raises(OutputError, match="are needed and 0 kB are free"),
        ):
            open_label_writer(pending, MemoryScan(np.zeros((*shape, 1))), card)

    def test_damage_on_disk_is_found(
        self,
        tmp_path: Path,
        card: Card,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        shape: tuple[int, ...],
    ) -> None:
        """The verification compares with the scratch file, so change that behind its back."""
        with PendingOutput(tmp_path / name) as pending:
            writer = open_label_writer(pending, MemoryScan(np.zeros((*shape, 1))), card)
            writer.write(full_window(shape), np.ones(shape, np.uint8))
            kind = type(writer)
            verify = kind._verify  # type: ignore[attr-defined]

            def damage_first(self: object, *args: object) -> None:
                if name.endswith(".tif"):
                    with (
                        warnings.catch_warnings(action="ignore"),
                        rasterio.open(pending.main, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as target,
                    ):
                        target.write(np.full((1, *shape), 3, np.uint8))
                else:
                    content = bytearray(pending.main.read_bytes())
                    content[-20] ^= 1
                    pending.main.write_bytes(content)
                verify(self, *args)

            monkeypatch.setattr(kind, "_verify", damage_first)
            with pytest.raises(OutputError):
                writer.finish()
        assert list(tmp_path.iterdir()) == []


def test_label_scans_are_checked() -> None:
    window = (slice(0, 2), slice(0, 2))
    floats = np.array([[[1.0], [2.0]], [[np.nan], [7.0]]])
    values, valid = read_labels(MemoryScan(floats), window)
    assert values.dtype == np.int32
    assert values.tolist() == [[1, 2], [0, 7]]
    assert valid.tolist() == [[True, True], [False, True]]
    with pytest.raises(ScanError, match=r"value 2\.5 among the labels; expected whole numbers"):
        read_labels(MemoryScan(np.full((2, 2, 1), 2.5)), window)
    with pytest.raises(ScanError, match="2 channels; expected one channel"):
        read_labels(MemoryScan(np.zeros((2, 2, 2))), window)
    with pytest.raises(ScanError, match="fit in 32 bits"):
        read_labels(MemoryScan(np.full((2, 2, 1), 2**40)), window)
