"""No output replaces what it is read from, and none leaves another's files beside it."""

from __future__ import annotations

import hashlib
import json
import os

import numpy as np
import pytest
import rasterio

import segfocal as sf
from segfocal.card import Card, Channel, LabelClass
from segfocal.engine.provenance import provenance_path, read_provenance
from segfocal.errors import OutputError, OutputExistsError


class Stub:
    ndim, output_stride, hash, engine, batch_matters = 2, 1, "stub", "numpy", False
    card = Card(
        ndim=2,
        channels=(Channel(name="a"),),
        classes=(
            LabelClass(value=1, name="low", color=(1, 2, 3)),
            LabelClass(value=2, name="high", color=(4, 5, 6)),
        ),
        tile=(32, 32),
    )

    def __call__(self, values, valid):
        high = values[..., :1] > 4
        return np.concatenate([~high, high], -1).astype(np.float32)


def write(path, count=1):
    values = np.random.default_rng(0).integers(0, 9, (count, 40, 50)).astype(np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", width=50, height=40, count=count, dtype="uint8",
        crs="EPSG:32119", transform=rasterio.Affine(2, 0, 0, 0, -2, 0),
    ) as out:  # fmt: skip
        out.write(values)
    return path


def vrt(path, source):
    path.write_text(
        '<VRTDataset rasterXSize="50" rasterYSize="40"><SRS>EPSG:32119</SRS>'
        "<GeoTransform>0, 2, 0, 0, 0, -2</GeoTransform>"
        '<VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{source.name}</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    return path


def test_a_source_of_a_vrt_is_kept(tmp_path):
    source = write(tmp_path / "source.tif")
    outer = vrt(tmp_path / "outer.vrt", vrt(tmp_path / "inner.vrt", source))
    before = source.read_bytes()
    with pytest.raises(OutputError, match="is read for this very output"):
        sf.predict(Stub(), outer, source, overwrite=True)
    os.link(source, tmp_path / "twin.tif")
    with pytest.raises(OutputError, match="is read for this very output"):
        sf.predict(Stub(), outer, tmp_path / "twin.tif", overwrite=True)
    assert source.read_bytes() == before


def test_a_scan_that_stands_where_a_layer_goes_is_kept(tmp_path):
    scan = write(tmp_path / "labels.probabilities.tif")
    before = scan.read_bytes()
    with pytest.raises(OutputError, match="is read for this very output"):
        sf.predict(Stub(), scan, tmp_path / "labels.tif", probabilities="uint8", overwrite=True)
    assert scan.read_bytes() == before
    assert not (tmp_path / "labels.tif").exists()


def test_an_area_is_not_replaced_by_polygons(tmp_path):
    pyogrio = pytest.importorskip("pyogrio")
    shapely = pytest.importorskip("shapely")
    scan, area = write(tmp_path / "scan.tif"), tmp_path / "parcels.gpkg"
    pyogrio.raw.write(
        area, np.array([shapely.to_wkb(shapely.box(10, -60, 80, -10))]), field_data=[], fields=[],
        geometry_type="Polygon", crs="EPSG:32119",
    )  # fmt: skip
    digest = hashlib.sha256(area.read_bytes()).hexdigest()
    with pytest.raises(OutputError, match="is read for this very output"):
        sf.predict(Stub(), scan, tmp_path / "l.tif", area=area, polygons=area, overwrite=True)
    assert hashlib.sha256(area.read_bytes()).hexdigest() == digest


def test_layers_and_polygons_of_the_output_before_are_removed_and_told(tmp_path):
    pytest.importorskip("pyogrio")
    scan, told = write(tmp_path / "scan.tif"), []
    sf.predict(
        Stub(), scan, tmp_path / "l.tif", polygons=".gpkg", probabilities="uint8", uncertainty=True
    )
    sf.predict(
        Stub(), scan, tmp_path / "l.tif", overlap=0, uncertainty=True, overwrite=True,
        notice=told.append,
    )  # fmt: skip
    assert not (tmp_path / "l.gpkg").exists()
    assert not (tmp_path / "l.probabilities.tif").exists()
    assert (tmp_path / "l.uncertainty.tif").exists()
    assert [line.split(": ")[1] for line in told] == [
        "removed, as it belonged to the output that was replaced"
    ] * 2


def test_an_output_without_its_class_names_is_not_finished(tmp_path):
    scan = write(tmp_path / "scan.tif")
    first = sf.predict(Stub(), scan, tmp_path / "l.tif")
    assert sf.predict(Stub(), scan, tmp_path / "l.tif").unchanged
    names = tmp_path / "l.tif.aux.xml"
    names.write_text(names.read_text() + "<!-- statistics of a viewer -->")
    assert sf.predict(Stub(), scan, tmp_path / "l.tif").unchanged
    names.unlink()
    with pytest.raises(OutputExistsError):
        sf.predict(Stub(), scan, tmp_path / "l.tif")
    again = sf.predict(Stub(), scan, tmp_path / "l.tif", overwrite=True)
    assert names.exists()
    assert (again.unchanged, again.sha256) == (False, first.sha256)


@pytest.mark.parametrize(
    "change",
    [
        {"result": []}, {"result": {}}, {"sha256": 3}, {"fingerprint": {}},
        {"result": {"classes": [], "layers": []}},
        {"result": {"classes": [], "layers": {"uncertainty": 3}}},
        {"result": {"classes": [], "polygons": {"file": 3}}},
    ],
)  # fmt: skip
def test_a_provenance_that_is_damaged_is_none(tmp_path, change):
    scan, output = write(tmp_path / "scan.tif"), tmp_path / "l.tif"
    sf.predict(Stub(), scan, output)
    place = provenance_path(output)
    place.write_text(json.dumps({**json.loads(place.read_text()), **change}))
    assert read_provenance(output) is None
    with pytest.raises(OutputExistsError):
        sf.predict(Stub(), scan, output)
    sf.predict(Stub(), scan, output, overwrite=True)
    assert read_provenance(output) is not None


def test_a_dangling_link_is_an_output_that_exists(tmp_path):
    (tmp_path / "l.tif").symlink_to(tmp_path / "elsewhere.tif")
    with pytest.raises(OutputExistsError):
        sf.predict(Stub(), write(tmp_path / "scan.tif"), tmp_path / "l.tif")


def test_info_tells_of_an_output_that_was_changed(tmp_path):
    from segfocal.inspection import inspect

    sf.predict(Stub(), write(tmp_path / "scan.tif"), tmp_path / "l.tif")
    assert "changed" not in inspect(str(tmp_path / "l.tif"))
    with open(tmp_path / "l.tif", "ab") as file:
        file.write(b"x")
    assert "SHA-256" in inspect(str(tmp_path / "l.tif"))["changed"]


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    with pytest.raises(OutputError, match="UTF-8"):
        sf.predict(Stub(), write(tmp_path / "scan.tif"), f"{tmp_path}/\udce9.tif")
