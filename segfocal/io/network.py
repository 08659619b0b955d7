"""Keeping scans off the network: what a path leads to is local, or it is not opened."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from segfocal.errors import ScanError
from segfocal.io.vrt_sources import CONNECTION, is_vrt, vrt_content

__all__ = [
    "check_polygons_stay_local",
    "check_stays_local",
    "forbid_network",
    "is_network_forbidden",
    "is_service",
]

VARIABLE = "SEGFOCAL_LOCAL_ONLY"
"""Environment variable that forbids the network when it is set to anything but 0."""

_LOCAL_VSI = ("zip", "tar", "gzip", "7z", "rar", "subfile", "mem", "sparse", "crypt")
_SERVICE_NAME = r"^(?:WMS|WCS|WMTS|WFS|OGCAPI|STACTA|STACIT|PLMOSAIC|EEDAI?|DAAS|PG|AWS):"
_REMOTE = re.compile(
    r"[a-z][a-z0-9+.-]*://|/vsi(?!(?:" + "|".join(_LOCAL_VSI) + r")(?:/|_))[a-z0-9_]+"
    r"|" + _SERVICE_NAME,
    re.IGNORECASE,
)
_LARGEST_DESCRIPTION = 64 * 2**20
_DESCRIBE_A_SERVICE = re.compile(
    r"\s*(?:\{|<(?:\?xml[^>]*>\s*<)?"
    r"(?:GDAL_WMS|WCS_GDAL|WMT_MS|WMS_|Capabilities|GDALTileIndex|OGRVRT))",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s<\"]+|/vsi[^\s<\"]+", re.IGNORECASE)

_forbidden = False


def forbid_network() -> None:
    """Refuse, in this process and from now on, scans that are not on local file systems.

    GDAL is given a proxy that does not answer, and ``NO_PROXY`` leaves the environment.
    """
    global _forbidden
    from rasterio.env import set_gdal_config

    _forbidden = True
    # Should a format lead outside in a way that is not known here, it meets a closed door.
    set_gdal_config("GDAL_HTTP_PROXY", "http://127.0.0.1:9")
    set_gdal_config("CPL_VSIL_CURL_ALLOWED_FILENAME", "/vsicurl/none")
    for variable in ("NO_PROXY", "no_proxy"):  # would open the door to the hosts in it
        os.environ.pop(variable, None)


def is_network_forbidden() -> bool:
    """Return whether the network is forbidden, by a call or by the environment."""
    if not _forbidden and os.environ.get(VARIABLE, "0") not in ("", "0"):
        forbid_network()
    return _forbidden


def check_stays_local(name: str, sources: Iterable[str] = (), *, follow: bool = True) -> None:
    """Raise if the network is forbidden and a scan's name, or what it refers to, is remote.

    Args:
        name: A name that GDAL would open. Sources of a VRT are followed; of other
            descriptions (WMS, STAC) the text is searched for addresses.
        sources: What else it refers to, as GDAL says once it is open.
        follow: Look at what it refers to as well.

    Raises:
        ScanError: It is remote, or a VRT whose sources cannot be told.
    """
    if not is_network_forbidden():
        return
    seen: set[str] = set()
    left = [*sources, name]
    while left:
        one = left.pop()
        if one in seen:
            continue
        seen.add(one)
        if _REMOTE.search(_own_name(one)):
            what = "is" if one == name else f"refers to {one}, which is"
            raise ScanError(
                f"{name}: {what} not a local file, and only local files may be read "
                "(--local-only): copy it to this machine first"
            )
        if follow:
            left.extend(_references(one))


def check_polygons_stay_local(name: str) -> None:
    """Raise as :func:`check_stays_local` does, for a file of polygons.

    Addresses in GeoJSON are attributes of its features: nothing is read from them.
    """
    if is_network_forbidden():
        json = _text(name).lstrip("\ufeff \t\r\n").startswith("{")
        check_stays_local(name, follow=not json)


def _own_name(name: str) -> str:
    """Return a name without what it refers to: that is looked at on its own."""
    refers = name[: len(CONNECTION)].lower() == CONNECTION or name.lstrip().startswith("<")
    return "" if refers and is_vrt(name) else name


def _references(name: str) -> Iterator[str]:
    """Yield the names that a VRT or the description of a service refers to."""
    if is_vrt(name):
        content = vrt_content(name)
        if content.broken:
            raise ScanError(
                f"{name}: not well-formed XML ({content.broken}), so that what it refers to cannot "
                "be told, and only local files may be read (--local-only): make the VRT again"
            )
        yield from content.sources
        for text in content.texts:
            if _REMOTE.search(text) or os.path.isfile(text):
                yield text
    else:
        yield from _addresses(name)


def is_service(name: str) -> bool:
    """Return whether a name, or the file of that name, describes a service that has the pixels."""
    return re.match(_SERVICE_NAME, name, re.IGNORECASE) is not None or bool(_addresses(name))


def _addresses(name: str) -> list[str]:
    """Return the addresses in the description of a service."""
    text = _text(name)
    if not _DESCRIBE_A_SERVICE.match(text):
        return []
    return [found[0] for found in _ADDRESS.finditer(_plain(text))]


def _plain(text: str) -> str:
    """Undo the ways to write an address in XML and JSON that hide it from a search."""
    text = html.unescape(text.replace("\\/", "/"))
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)


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
