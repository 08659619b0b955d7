"""Polygons of label maps, from predict to the file that GIS programs open."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.features
import rasterio.warp
from click.testing import CliRunner
from plain_scenes import NORTH_UP, Stub, write_scene
from rasterio.errors import NotGeoreferencedWarning

import segfocal as sf
import segfocal.engine.output
import segfocal.io.polygons
from segfocal.card import Channel
from segfocal.cli import segfocal as command
from segfocal.engine.provenance import read_provenance
from segfocal.errors import OutputError, OutputExistsError

pyogrio = pytest.importorskip("pyogrio")
shapely = pytest.importorskip("shapely")

SOUTH_UP = rasterio.Affine(2, 0, 600000, 0, 2, 199640)
ROTATED = rasterio.Affine(1.5, 0.5, 600000, 0.4, -1.8, 200000)


@pytest.fixture(autouse=True)
def narrow_strips(monkeypatch):
    """Cut even small maps into many strips."""
    monkeypatch.setattr(segfocal.io.polygons, "STRIP_PIXELS", 1000)


def read(path):
    about, _, geometry, fields = pyogrio.raw.read(path, layer=path.stem)
    columns = dict(zip(about["fields"].tolist(), fields, strict=True))
    return about, shapely.from_wkb(geometry), columns


def attempt(model, scene, labels, polygons):
    """Return the prediction, or the message of why there is none."""
    try:
        return sf.predict(model, scene, labels, polygons=polygons)
    except OutputError as error:
        return str(error)


def pixels_of(path):
    with rasterio.open(path) as file:
        return file.read(1), file.transform, file.crs


@pytest.mark.parametrize("suffix", ["gpkg", "fgb"])
@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, ROTATED])
def test_polygons_are_the_label_map(tmp_path, suffix, transform):
    scene = write_scene(tmp_path / "scene.tif", transform=transform)
    path = tmp_path / f"parts.{suffix}"
    result = sf.predict(Stub(), scene, tmp_path / "labels.tif", polygons=path)
    labels, grid, _ = pixels_of(tmp_path / "labels.tif")
    about, polygons, fields = read(path)
    assert (about["crs"], about["geometry_type"]) == ("EPSG:32119", "Polygon")
    assert pyogrio.list_layers(path)[0, 0] == "parts"
    assert fields["name"].tolist() == [f"class {value}" for value in fields["value"]]
    burnt = rasterio.features.rasterize(
        zip(polygons, fields["value"].tolist(), strict=True),
        labels.shape, fill=255, transform=grid, dtype="uint8",
    )  # fmt: skip
    np.testing.assert_array_equal(burnt, labels)
    by_gdal = rasterio.features.shapes(labels, mask=labels != 255, transform=grid)
    expected = [(int(value), shapely.geometry.shape(shape)) for shape, value in by_gdal]
    assert result.polygons == len(polygons) == len(expected) > 300
    assert sorted((value, shapely.normalize(shape).wkb) for value, shape in expected) == sorted(
        zip(fields["value"], shapely.to_wkb(shapely.normalize(polygons)), strict=True)
    )
    np.testing.assert_allclose(fields["area_ha"], shapely.area(polygons) / 1e4, rtol=1e-6)
    by_class = [fields["area_ha"][fields["value"] == value].sum() for value in (1, 2, 9)]
    told = read_provenance(tmp_path / "labels.tif")["result"]
    np.testing.assert_allclose(by_class, [label["hectares"] for label in told["classes"]])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert told["polygons"] == {
        "file": path.name, "simplify": None, "min_area": None,
        "features": len(polygons), "sha256": digest,
    }  # fmt: skip


def test_a_geopackage_has_the_colours_of_the_classes_for_qgis(tmp_path):
    scene = write_scene(tmp_path / "scene.tif")
    sf.predict(Stub(), scene, tmp_path / "labels.tif", polygons=tmp_path / "parts.gpkg")
    assert pyogrio.list_layers(tmp_path / "parts.gpkg")[:, 0].tolist() == ["parts", "layer_styles"]
    about, _, _, columns = pyogrio.raw.read(tmp_path / "parts.gpkg", layer="layer_styles")
    row = {name: column[0] for name, column in zip(about["fields"], columns, strict=True)}
    layer = pyogrio.read_info(tmp_path / "parts.gpkg", layer="parts")
    assert (row["f_table_name"], row["f_geometry_column"]) == ("parts", layer["geometry_name"])
    assert row["f_table_schema"] == ""  # QGIS looks for the empty text
    assert row["useAsDefault"]
    style = ElementTree.fromstring(row["styleQML"])
    colors = {
        symbol.get("name"): symbol.find(".//Option[@name='color']").get("value")
        for symbol in style.iter("symbol")
    }
    shown = {
        category.get("value"): (category.get("label"), colors[category.get("symbol")])
        for category in style.iter("category")
    }
    assert shown == {
        str(label.value): (label.name, ",".join(map(str, (*label.color, 255))))
        for label in Stub().card.classes
    }


def test_geojson_is_in_longitude_and_latitude_without_gaps(tmp_path):
    scene = write_scene(tmp_path / "scene.tif")
    path = tmp_path / "parts.geojson"
    sf.predict(Stub(), scene, tmp_path / "labels.tif", polygons=path)
    assert "crs" not in json.loads(path.read_text(encoding="utf-8"))  # RFC 7946, section 4
    about, polygons, fields = read(path)
    assert about["crs"] == "EPSG:4326"
    labels, grid, crs = pixels_of(tmp_path / "labels.tif")
    assert all(polygon.exterior.is_ccw for polygon in polygons)
    back = rasterio.warp.transform_geom("EPSG:4326", crs, list(polygons))
    burnt = rasterio.features.rasterize(
        zip(back, fields["value"].tolist(), strict=True),
        labels.shape, fill=255, transform=grid, dtype="uint8",
    )  # fmt: skip
    np.testing.assert_array_equal(burnt, labels)
    assert shapely.coverage_is_valid(polygons)


def test_areas_of_degrees_are_those_on_the_ellipsoid(tmp_path):
    pyproj = pytest.importorskip("pyproj")
    degrees = rasterio.Affine(0.001, 0, 12, 0, -0.002, 61)
    scene = write_scene(tmp_path / "scene.tif", crs="EPSG:4326", transform=degrees)
    sf.predict(Stub(), scene, tmp_path / "labels.tif", polygons=tmp_path / "parts.gpkg")
    _, polygons, fields = read(tmp_path / "parts.gpkg")
    geod = pyproj.Geod(ellps="WGS84")
    # Geodesics leave the parallels: by less the shorter they are.
    dense = shapely.segmentize(polygons, 0.0005)
    expected = [abs(geod.geometry_area_perimeter(polygon)[0]) / 1e4 for polygon in dense]
    np.testing.assert_allclose(fields["area_ha"], expected, rtol=1e-6)


def test_simplified_neighbours_leave_no_gaps(tmp_path):
    scene = write_scene(tmp_path / "scene.tif")
    for name, options in (("plain", {}), ("simple", {"simplify": 6.0})):
        sf.predict(
            Stub(), scene, tmp_path / f"{name}.tif", polygons=tmp_path / f"{name}.gpkg", **options
        )
    _, plain, _ = read(tmp_path / "plain.gpkg")
    _, simple, fields = read(tmp_path / "simple.gpkg")
    assert len(simple) == len(plain)
    assert shapely.get_num_coordinates(simple).sum() < shapely.get_num_coordinates(plain).sum()
    assert shapely.is_valid(simple).all()
    assert shapely.coverage_is_valid(simple)
    together = shapely.union_all(simple)
    assert len(together.interiors) == len(shapely.union_all(plain).interiors) > 0  # no data
    assert abs(shapely.area(simple).sum() - together.area) < 1e-3
    np.testing.assert_allclose(fields["area_ha"].sum(), shapely.area(plain).sum() / 1e4)
    assert (tmp_path / "plain.tif").read_bytes() == (tmp_path / "simple.tif").read_bytes()


def test_small_polygons_are_left_out(tmp_path):
    scene = write_scene(tmp_path / "scene.tif")
    counts = {}
    for size in (None, 25, "25", "100m2", "0.01ha", 26):
        result = sf.predict(
            Stub(), scene, tmp_path / "labels.tif", polygons=tmp_path / "parts.gpkg",
            min_area=size, overwrite=True,
        )  # fmt: skip
        counts[size] = result.polygons
        least = read(tmp_path / "parts.gpkg")[2]["area_ha"].min()
        assert least >= (0 if size is None else 0.01 - 1e-9)
    assert counts[25] == counts["25"] == counts["100m2"] == counts["0.01ha"]
    assert counts[None] > counts[25] > counts[26] > 0


def test_a_finished_label_map_gets_polygons_without_being_made_again(tmp_path):
    scene, labels = write_scene(tmp_path / "scene.tif"), tmp_path / "labels.tif"
    other = tmp_path / "elsewhere"
    other.mkdir()
    first = sf.predict(Stub(), scene, labels)
    assert first.polygons is None
    before = (labels.read_bytes(), labels.stat().st_mtime_ns)
    ran = []

    class Watched(Stub):
        def __call__(self, values, valid):
            ran.append(len(values))
            return super().__call__(values, valid)

    second = sf.predict(Watched(), scene, labels, polygons=other / "parts.fgb")
    assert (ran, second.unchanged, second.sha256) == ([], False, first.sha256)
    assert (labels.read_bytes(), labels.stat().st_mtime_ns) == before
    told = read_provenance(labels)["result"]["polygons"]
    assert (labels.parent / told["file"]).samefile(other / "parts.fgb")
    third = sf.predict(Watched(), scene, labels, polygons=other / "parts.fgb")
    assert (ran, third.unchanged, third.polygons) == ([], True, second.polygons)
    (other / "parts.fgb").write_bytes(b"damaged")
    with pytest.raises(OutputExistsError, match=r"parts\.fgb: exists already"):
        sf.predict(Watched(), scene, labels, polygons=other / "parts.fgb")
    sf.predict(Watched(), scene, labels, polygons=other / "parts.fgb", overwrite=True)
    assert len(read(other / "parts.fgb")[1]) == second.polygons
    assert not ran
    assert not list(other.glob(".*"))


def test_both_files_repeat(tmp_path):
    scene = write_scene(tmp_path / "scene.tif")
    for suffix in ("gpkg", "geojson", "fgb"):
        contents = []
        for name in ("a", "b"):
            folder = tmp_path / f"{suffix}-{name}"
            folder.mkdir()
            sf.predict(Stub(), scene, folder / "labels.tif", polygons=folder / f"parts.{suffix}")
            contents.append((folder / f"parts.{suffix}").read_bytes())
        assert contents[0] == contents[1]


def test_a_run_killed_between_the_two_files_is_continued(tmp_path, monkeypatch):
    scene, labels, parts = (tmp_path / name for name in ("scene.tif", "labels.tif", "parts.gpkg"))
    write_scene(scene)
    commit = segfocal.engine.output.PendingOutput.commit

    def stop(self):
        if self.destination == labels:
            raise KeyboardInterrupt
        commit(self)

    with monkeypatch.context() as patch:
        patch.setattr(segfocal.engine.output.PendingOutput, "commit", stop)
        with pytest.raises(KeyboardInterrupt):
            sf.predict(Stub(), scene, labels, polygons=parts)
    assert parts.exists()
    assert not labels.exists()
    result = sf.predict(Stub(), scene, labels, polygons=parts)
    assert result.polygons == len(read(parts)[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "labels.tif", "labels.tif.aux.xml", "labels.tif.json", "parts.gpkg", "scene.tif",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "scene_options", "message"),
    [
        ({"polygons": "parts.shp"}, {}, r"no format for polygons; expected \.gpkg"),
        ({"polygons": "parts.geojson"}, {"crs": None}, "has no CRS"),
        ({"polygons": "parts.gpkg", "simplify": -1.0}, {}, "tolerance above 0"),
        ({"polygons": "parts.gpkg", "min_area": "x"}, {}, "expected a number above 0"),
        ({"polygons": "parts.gpkg", "min_area": "1ha"}, {"crs": None}, "in pixels"),
        ({"simplify": 1.0}, {}, "simplify is for polygons"),
        ({"min_area": 1}, {}, "min_area is for polygons"),
        ({"polygons": "nowhere/parts.gpkg"}, {}, "does not exist"),
        ({"polygons": "there.gpkg"}, {}, "exists already"),
    ],
)
def test_what_cannot_be_is_told_before_the_first_tile(tmp_path, options, scene_options, message):
    scene = write_scene(tmp_path / "scene.tif", **scene_options)
    (tmp_path / "there.gpkg").write_bytes(b"precious")
    if "polygons" in options:
        options = {**options, "polygons": tmp_path / options["polygons"]}

    class Never(Stub):
        def __call__(self, values, valid):
            raise AssertionError("a tile was run")

    with pytest.raises(OutputError, match=message):
        sf.predict(Never(), scene, tmp_path / "labels.tif", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.tif", "there.gpkg"]
    assert (tmp_path / "there.gpkg").read_bytes() == b"precious"


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    scene = write_scene(tmp_path / "scene.tif")
    monkeypatch.setitem(sys.modules, "pyogrio", None)
    with pytest.raises(OutputError, match=r"pip install 'segfocal\[vector\]'"):
        sf.predict(Stub(), scene, tmp_path / "labels.tif", polygons=tmp_path / "parts.gpkg")


def test_too_many_pieces_for_the_memory_are_refused(tmp_path, monkeypatch):
    scene = write_scene(tmp_path / "scene.tif")
    monkeypatch.setattr(segfocal.io.polygons, "DEFAULT_MEMORY", 150_000)
    sf.predict(Stub(), scene, tmp_path / "labels.tif", polygons=tmp_path / "parts.gpkg")
    with pytest.raises(OutputError, match=r"corners.*simplifying holds.*raise max_memory"):
        sf.predict(
            Stub(), scene, tmp_path / "more.tif", polygons=tmp_path / "more.gpkg", simplify=1.0
        )
    assert not list(tmp_path.glob("more*"))


def test_pictures_without_georeference_have_polygons_in_pixels(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", crs=None, transform=None)
    sf.predict(Stub(), scene, tmp_path / "labels.tif", polygons=tmp_path / "parts.gpkg")
    with pytest.warns(NotGeoreferencedWarning):
        labels, _, _ = pixels_of(tmp_path / "labels.tif")
    about, polygons, fields = read(tmp_path / "parts.gpkg")
    assert about["crs"] is None
    assert fields["area"].sum() == shapely.area(polygons).sum() == (labels != 255).sum()


def test_the_command_takes_them(tmp_path, monkeypatch):
    scene, parts = write_scene(tmp_path / "scene.tif"), tmp_path / "parts.gpkg"
    monkeypatch.setattr("segfocal.prepared.in_engine", lambda model, *rest, **more: Stub())
    done = CliRunner().invoke(
        command,
        ["predict", "model.keras", str(scene), "-o", str(tmp_path / "labels.tif"), "--polygons",
         str(parts), "--min-size", "9", "--min-area", "0.01ha", "--simplify", "2", "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["polygons"] == len(read(parts)[1])
    assert Path(json.loads(done.stdout)["output"]).exists()


def test_a_real_map_has_the_polygons_of_gdal(tmp_path, shared_data):
    scene = shared_data / "sat_nc_landsat7_landclass96" / "strata.tif"

    class Same(Stub):
        def __call__(self, values, valid):
            return np.eye(7, dtype=np.float32)[np.clip(values[..., 0].astype(int) - 1, 0, 6)]

    model = Same(values=tuple(range(1, 8)))
    result = sf.predict(
        model, scene, tmp_path / "labels.tif", polygons=tmp_path / "parts.fgb", min_size="1ha"
    )
    labels, grid, _ = pixels_of(tmp_path / "labels.tif")
    by_gdal = rasterio.features.shapes(labels, mask=labels != 255, transform=grid)
    expected = [(int(value), shapely.geometry.shape(shape)) for shape, value in by_gdal]
    _, polygons, fields = read(tmp_path / "parts.fgb")
    assert result.polygons == len(expected) > 500
    assert sorted((value, shapely.normalize(shape).wkb) for value, shape in expected) == sorted(
        zip(fields["value"], shapely.to_wkb(shapely.normalize(polygons)), strict=True)
    )


def test_many_scans_have_their_polygons_beside_their_labels(tmp_path):
    scenes = [write_scene(tmp_path / f"{name}.tif") for name in "ab"]
    out = tmp_path / "out"
    with pytest.raises(OutputError, match="expected a suffix"):
        sf.predict_many(Stub(), scenes, out, polygons="parts.gpkg")
    summary = sf.predict_many(Stub(), scenes, out, polygons=".gpkg", min_size=9)
    assert not summary.failed
    for name in "ab":
        assert len(read(out / f"{name}.gpkg")[1]) > 10


def test_files_of_a_stack_have_polygons_and_areas(tmp_path):
    scene = write_scene(tmp_path / "a.tif")
    write_scene(tmp_path / "b.tif")

    class Two(Stub):
        def __init__(self):
            super().__init__()
            both = (Channel(name="a"), Channel(name="b"))
            self.card = self.card.model_copy(update={"channels": both})

    options = {"area": (600020, 199700, 600200, 199900), "min_size": 9}
    sf.predict(Stub(), scene, tmp_path / "one.tif", polygons=tmp_path / "one.gpkg", **options)
    sf.predict(
        Two(), [scene, tmp_path / "b.tif"], tmp_path / "two.tif", polygons=tmp_path / "two.gpkg",
        **options,
    )  # fmt: skip
    for one, two in zip(
        read(tmp_path / "one.gpkg")[1], read(tmp_path / "two.gpkg")[1], strict=True
    ):
        assert one == two
    assert pixels_of(tmp_path / "one.tif")[1] == pixels_of(tmp_path / "two.tif")[1]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no tmpfs")
@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "fgb"])
def test_a_small_disk_for_polygons_leaves_nothing(tmp_path, suffix):
    scene, disk = write_scene(tmp_path / "scene.tif"), tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    outcomes = []
    whole = tmp_path / f"whole.{suffix}"
    sf.predict(Stub(), scene, tmp_path / "labels.tif", polygons=whole)
    _, polygons, _ = read(whole)
    expected = len(polygons), shapely.get_num_coordinates(polygons).sum()
    try:
        for pages in (2, 12, 22, 28, 40, 50, 70, 100, 140, 1000):
            size = ["mount", "-o", f"remount,size={4096 * pages}", str(disk)]
            subprocess.run(size, check=True)
            labels, parts = tmp_path / f"labels{pages}.tif", disk / f"parts.{suffix}"
            found = attempt(Stub(), scene, labels, parts)
            outcomes.append(not isinstance(found, str))
            if isinstance(found, str):
                assert "\n" not in found
                assert not labels.exists()
                assert not list(disk.iterdir())
            else:
                _, polygons, _ = read(parts)
                assert (len(polygons), shapely.get_num_coordinates(polygons).sum()) == expected
                parts.unlink()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    assert outcomes == sorted(outcomes)
    assert outcomes[0] is False
    assert outcomes[-1] is True
    assert outcomes.count(False) > 2
