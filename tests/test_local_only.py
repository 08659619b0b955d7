"""Where only local files may be read, nothing is sent, however a scan refers to what is remote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from file_server import serving

from segfocal.errors import ScanError
from segfocal.io import network
from segfocal.io.network import check_stays_local
from segfocal.io.vector import read_polygons
from segfocal.io.vrt_sources import vrt_content, vrt_sources

# The tests' own process may not reach the network, this machine included; another one may.
READ = """
import sys, warnings
warnings.simplefilter("ignore")
from segfocal.io import open_scan
from segfocal.io.identity import scan_identity
for name in sys.argv[1:]:
    try:
        with open_scan(name) as scan:
            scan_identity(scan)
            scan.read(tuple(slice(0, side) for side in scan.shape))
    except Exception as error:
        print(type(error).__name__, " ".join(str(error).split()))
    else:
        print("read")
"""


def in_another_process(code: str, *arguments: object, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True,
        check=False, timeout=120,
        env={**os.environ, "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def vrt(source: str, before: str = "", named: str = "SourceFilename", extra: str = "") -> str:
    return (
        f'{before}<VRTDataset rasterXSize="12" rasterYSize="8">{extra}'
        '<VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<{named} relativeToVRT="0">{source}</{named}><SourceBand>1</SourceBand>'
        '<SourceProperties RasterXSize="12" RasterYSize="8" DataType="Byte"/>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with rasterio.open(
        tmp_path / "local.tif", "w", driver="GTiff", width=12, height=8, count=1, dtype="uint8",
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 500000, 0, -10, 4000000),
    ) as target:  # fmt: skip
        target.write(np.arange(96, dtype=np.uint8).reshape(1, 8, 12))
    return tmp_path


def ways(folder: Path, source: str) -> Iterator[Path | str]:
    """Yield names of scans that refer to a remote source, each in a way of its own."""
    hidden = source.replace(":", "&#58;").replace("/", "&#x2f;")
    entity = f'<!DOCTYPE VRTDataset [<!ENTITY there "{source}">]>'
    texts = {
        "plain.vrt": vrt(source),
        "remote_as.tif": vrt(source),
        "without_suffix": vrt(source),
        "cdata.vrt": vrt(f"<![CDATA[{source}]]>"),
        "cdata_as.png": vrt(f"<![CDATA[{source[:20]}]]><![CDATA[{source[20:]}]]>"),
        "references.vrt": vrt(hidden),
        "comment.vrt": vrt(f"<!-- a comment -->{source}"),
        "lower.vrt": vrt(source, named="sourcefilename"),
        "declared.vrt": vrt(source, '<?xml version="1.0" encoding="ISO-8859-1"?>'),
        "late.vrt": vrt(source, f"<!-- {'a' * 900} -->"),
        "entity.vrt": vrt("&there;", entity),
        "broken.vrt": vrt(source) + "<more",
        "behind_zero.vrt": vrt(source) + "\0<more",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
        yield folder / name
    (folder / "attribute.vrt").write_text(
        vrt("x").replace("<SimpleSource>", f'<SimpleSource SourceFilename="{source}">', 1)
    )
    yield folder / "attribute.vrt"
    (folder / "outer.tif").write_text(vrt(str(folder / "without_suffix")))
    yield folder / "outer.tif"
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("inner.vrt", vrt(source))
    yield f"/vsizip/{folder / 'a.zip'}/inner.vrt"
    yield f"vrt://{source}"
    yield f"vrt://{folder / 'remote_as.tif'}?bands=1"


def test_nothing_is_sent_for_any_way_to_refer_to_what_is_remote(folder: Path) -> None:
    with serving(folder) as (url, sent):
        names = list(ways(folder, f"/vsicurl/{url}/local.tif"))
        told = in_another_process(READ, *names, SEGFOCAL_LOCAL_ONLY="1")
        assert sent == []
        for name, line in zip(names, told, strict=True):
            assert line.startswith("ScanError"), (name, line)
            assert "only local files may be read" in line, (name, line)
        # Without the restriction most of them do lead outside, or there would be nothing to see.
        told = in_another_process(READ, *names)
        assert told.count("read") >= 12, told
        assert sent


@pytest.mark.parametrize(
    ("opened", "unset"),
    [
        ("/vsicurl/{url}/local.tif", "GDAL_HTTP_PROXY"),
        ("{folder}/service.xml", "CPL_VSIL_CURL_ALLOWED_FILENAME"),
    ],
)
def test_gdal_itself_finds_the_door_closed(folder: Path, opened: str, unset: str) -> None:
    code = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "import rasterio\nfrom rasterio.env import set_gdal_config\n"
        "from segfocal import forbid_network\n"
        "if sys.argv[2] == 'closed': forbid_network()\n"
        "set_gdal_config(sys.argv[3], '')\n"
        "try:\n    with rasterio.open(sys.argv[1]) as file: file.read()\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    with serving(folder) as (url, sent):
        (folder / "0").write_bytes((folder / "local.tif").read_bytes())  # tile of level 0
        (folder / "service.xml").write_text(
            f'<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/${{z}}</ServerUrl></Service>'
            "<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>8</UpperLeftY><LowerRightX>12"
            "</LowerRightX><LowerRightY>0</LowerRightY><SizeX>12</SizeX><SizeY>8</SizeY>"
            "</DataWindow><BlockSizeX>12</BlockSizeX><BlockSizeY>8</BlockSizeY>"
            "<BandsCount>1</BandsCount></GDAL_WMS>"
        )
        name = opened.format(url=url, folder=folder)
        # With the other one of the two settings away: each holds on its own.
        in_another_process(code, name, "closed", unset, NO_PROXY="127.0.0.1", no_proxy="*")
        assert sent == []
        in_another_process(code, name, "open", unset)
        assert sent


@pytest.mark.parametrize("name", ["vrt://{}", "vrt://{}?bands=1,1"])
def test_a_connection_to_a_local_file_is_local(folder: Path, name: str) -> None:
    name = name.format(folder / "local.tif")
    assert in_another_process(READ, name, SEGFOCAL_LOCAL_ONLY="1") == ["read"]
    assert list(vrt_sources(name)) == [str(folder / "local.tif")]


def test_an_address_that_is_only_told_of_is_no_source(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_forbidden", True)
    about = "<Metadata><MDI key='licence'>https://example.org/</MDI></Metadata>"
    (folder / "told.vrt").write_text(vrt(str(folder / "local.tif"), extra=about))
    check_stays_local(str(folder / "told.vrt"))
    place = about.replace("<Metadata>", "<Metadata domain='GEOLOCATION'>")
    (folder / "told.vrt").write_text(vrt(str(folder / "local.tif"), extra=place))
    with pytest.raises(ScanError, match=r"refers to https://example\.org/, which is not a local"):
        check_stays_local(str(folder / "told.vrt"))


def test_services_that_hide_their_address(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_forbidden", True)
    texts = [
        "<GDAL_WMS><ServerUrl>http&#58;//example.org/</ServerUrl></GDAL_WMS>",
        "<gdal_wms><serverurl>ftp://example.org/</serverurl></gdal_wms>",
        r'{"type": "Feature", "href": "https:\/\/example.org\/a.tif"}',
        r'{"type": "Feature", "href": "https\u003a//example.org/a.tif"}',
    ]
    for text in texts:
        (folder / "service").write_text(text)
        with pytest.raises(ScanError, match="only local files may be read"):
            check_stays_local(str(folder / "service"))


def test_polygons_with_addresses_among_their_attributes_are_local(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyogrio")
    square = [[500000, 3999920], [500060, 3999920], [500060, 4000000], [500000, 3999920]]
    (folder / "area.geojson").write_text(
        json.dumps(
            {
                "type": "Feature",
                "properties": {"page": "https://example.org/"},
                "geometry": {"type": "Polygon", "coordinates": [square]},
            }
        )
    )
    vrt = "<OGRVRTDataSource><OGRVRTLayer name='a'><SrcDataSource>{}</SrcDataSource></OGRVRTLayer>"
    (folder / "area.vrt").write_text(vrt.format("/vsicurl/https://example.org/a.fgb"))
    monkeypatch.setattr(network, "_forbidden", True)
    (ring,), _ = read_polygons(str(folder / "area.geojson"))
    assert {tuple(corner) for corner in ring.tolist()} == {tuple(corner) for corner in square}
    for name in ("/vsicurl/https://example.org/area.geojson", str(folder / "area.vrt")):
        with pytest.raises(ScanError, match="only local files may be read"):
            read_polygons(name)


def test_entities_are_not_expanded(folder: Path) -> None:
    layers = "".join(
        f'<!ENTITY e{i} "{f"&e{i - 1};" * 20 if i else "a" * 1000}">' for i in range(9)
    )
    (folder / "bomb").write_text(vrt("&e8;", f"<!DOCTYPE VRTDataset [{layers}]>"))
    content = vrt_content(str(folder / "bomb"))
    assert content.broken
    assert content.sources == ()


def test_a_large_mosaic_is_read_piece_by_piece(folder: Path) -> None:
    sources = "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="1">é{i}.tif</SourceFilename></SimpleSource>'
        for i in range(30_000)
    )
    (folder / "mosaic").write_text(
        '<VRTDataset rasterXSize="12" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1">'
        f"{sources}</VRTRasterBand></VRTDataset>"
    )
    expected = [str(folder / f"é{i}.tif") for i in range(30_000)]
    assert list(vrt_sources(str(folder / "mosaic"))) == expected
