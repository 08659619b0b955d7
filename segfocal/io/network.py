"""Keeping scans off the network: what a path leads to is local, or it is not opened."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from segfocal.errors import ScanError
from segfocal.io.vrt_sources import vrt_sources

__all__ = ["check_stays_local", "forbid_network"]

VARIABLE = "SEGFOCAL_LOCAL_ONLY"
"""Environment variable that forbids the network when it is set to anything but 0."""

_LOCAL_VSI = ("zip", "tar", "gzip", "7z", "rar", "subfile", "mem", "sparse", "crypt")
_REMOTE = re.compile(
    r"[a-z][a-z0-9+.-]*://|/vsi(?!(?:" + "|".join(_LOCAL_VSI) + r")(?:/|_))[a-z0-9_]+"
    r"|^(?:WMS|WCS|WMTS|WFS|OGCAPI|STACTA|STACIT|PLMOSAIC|EEDAI?|DAAS|PG|AWS):",
    re.IGNORECASE,
)
_LARGEST_DESCRIPTION = 64 * 2**20
_DESCRIBE_A_SERVICE = re.compile(
    r"\s*(?:\{|<(?:\?xml[^>]*>\s*<)?(?:GDAL_WMS|WCS_GDAL|WMT_MS|WMS_|Capabilities|GDALTileIndex))"
)

_forbidden = False


def forbid_network() -> None:
    """Refuse, in this process and from now on, scans that are not on local file systems."""
    global _forbidden
    from rasterio.env import set_gdal_config

    _forbidden = True
    # Should a format lead outside in a way that is not known here, it meets a closed door.
    set_gdal_config("GDAL_HTTP_PROXY", "http://127.0.0.1:9")
    set_gdal_config("CPL_VSIL_CURL_ALLOWED_FILENAME", "/vsicurl/none")


def check_stays_local(name: str) -> None:
    """Raise if the network is forbidden and a scan's name, or what it refers to, is remote.

    Args:
        name: A name that GDAL would open. Sources of a VRT are followed; of other
            descriptions (WMS, STAC) the text is searched for addresses.

    Raises:
        ScanError: It is remote.
    """
    if not _forbidden and os.environ.get(VARIABLE, "0") in ("", "0"):
        return
    if not _forbidden:
        forbid_network()
    seen: set[str] = set()
    left = [name]
    while left:
        one = left.pop()
        if one in seen:
            continue
        seen.add(one)
        if _REMOTE.search(one):
            what = "is" if one == name else f"refers to {one}, which is"
            raise ScanError(
                f"{name}: {what} not a local file, and only local files may be read "
                "(--local-only): copy it to this machine first"
            )
        left.extend(_references(one))


def _references(name: str) -> Iterator[str]:
    """Yield the names that a VRT or the description of a service refers to."""
    yield from vrt_sources(name)
    text = _text(name)
    if _DESCRIBE_A_SERVICE.match(text):
        yield from (found[0] for found in re.finditer(r"https?://[^\s<\"]+|/vsi[^\s<\"]+", text))


def _text(name: str) -> str:
    """Return the content of a description, or what a name describes by itself."""
    if name.lstrip().startswith(("<", "{")):
        return name
    path = Path(name)
    try:
        with path.open("rb") as file:
            if file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"<", b"{"):
                return ""
        if path.stat().st_size > _LARGEST_DESCRIPTION:
            return ""
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return ""
