"""VRTs that are broken or mean harm: one line, and no code of theirs is run."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from segfocal.errors import ScanError
from segfocal.io import open_scan
from segfocal.io.identity import scan_identity

SOURCE = """
<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename>
<SourceBand>1</SourceBand></SimpleSource>
"""
PYTHON = """
<PixelFunctionType>run</PixelFunctionType>
<PixelFunctionLanguage>Python</PixelFunctionLanguage>
<PixelFunctionCode><![CDATA[
def run(given, out, *rest, **options):
    open({trace!r}, "w").close()
    out[:] = 1
]]></PixelFunctionCode>
"""


def write_vrt(path, source, extra="", kind=""):
    path.write_text(
        '<VRTDataset rasterXSize="12" rasterYSize="8">'
        f'<VRTRasterBand dataType="Byte" band="1" {kind}>{extra}'
        f"{SOURCE.format(name=source)}</VRTRasterBand></VRTDataset>"
    )
    return path


def read(path):
    with open_scan(path) as scan:
        scan_identity(scan)  # which looks into the sources too, and must come to an end
        return scan.read((slice(0, 8), slice(0, 12)))


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"a.vrt": "a.vrt"}, "Recursion detected"),
        ({"a.vrt": "b.vrt", "b.vrt": "a.vrt"}, "Recursion detected"),
        ({"a.vrt": "a.tif", "a.tif": "a.vrt"}, "Recursion detected"),
        ({"a.vrt": "in/a.vrt"}, "Recursion detected"),
        ({"a.vrt": "gone.tif"}, "gone.tif"),
    ],
)
def test_sources_that_lead_nowhere(tmp_path, sources, message):
    (tmp_path / "in").symlink_to(tmp_path)
    for name, source in sources.items():
        write_vrt(tmp_path / name, source)
    with pytest.raises(ScanError, match=message) as caught:
        read(tmp_path / "a.vrt")
    assert "\n" not in str(caught.value)


def test_a_vrt_of_itself_is_known_by_what_is_in_it(tmp_path):
    with pytest.raises(ScanError, match=r"Recursion detected: .* among its own sources"):
        read(write_vrt(tmp_path / "itself.tif", "itself.tif"))


def test_python_in_a_vrt_is_not_run_even_where_gdal_may(write_tif, tmp_path):
    write_tif(np.ones((1, 8, 12), np.uint8))
    trace = tmp_path / "it ran"
    path = write_vrt(
        tmp_path / "code.vrt",
        "scene.tif",
        PYTHON.format(trace=str(trace)),
        'subClass="VRTDerivedRasterBand"',
    )
    code = (
        "import sys; from segfocal.io import open_scan\n"
        "with open_scan(sys.argv[1]) as scan: scan.read((slice(0, 8), slice(0, 12)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False,
        timeout=120, env={**os.environ, "GDAL_VRT_ENABLE_PYTHON": "YES"},
    )  # fmt: skip
    assert "ScanError" in done.stderr
    assert "Python" in done.stderr
    assert not trace.exists()
    plain = "import sys, rasterio\nwith rasterio.open(sys.argv[1]) as vrt: vrt.read()"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", plain, str(path)], check=False,
        timeout=120, env={**os.environ, "GDAL_VRT_ENABLE_PYTHON": "YES"},
    )  # fmt: skip
    assert trace.exists(), "this GDAL runs no Python in VRTs, so that the test shows nothing"
