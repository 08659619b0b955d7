"""Identity of a scan's files: what changes when the scan may have changed.

Local files are known by absolute path, size, time of last change and a hash of their first
bytes; remote ones by what their server says of them. Every file that a scan is read from
counts: the sources of a VRT, masks and ``.aux.xml`` beside a raster, both files of a pair.

What is read through other file systems of GDAL's (``/vsis3/``), from a service (WMS) or from a
server that says nothing is *unknown*: nothing tells whether it changed.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable
from typing import Any

from segfocal.io.base import Scan
from segfocal.io.formats import is_local_path
from segfocal.io.network import is_service
from segfocal.io.remote_identity import remote_identity, url_in
from segfocal.io.vrt_sources import is_vrt, vrt_sources

__all__ = ["files_of", "format_versions", "scan_identity", "unknown_files"]

HEAD_BYTES = 2**16
_BESIDE = (".msk", ".aux.xml", "-wal")  # GDAL names them only once it has looked into them
_SHAPEFILE = (".dbf", ".shx", ".prj", ".cpg")
_VSI_PREFIXES = ("/vsizip/", "/vsitar/", "/vsigzip/", "/vsi7z/", "/vsirar/", "/vsisubfile/")


def scan_identity(scan: Scan) -> dict[str, Any]:
    """Return what tells a scan from another, and from itself before a change, as a JSON value.

    An array in memory has no identity beyond its name and shape: it is unknown.
    """
    names = list(dict.fromkeys((scan.name, *getattr(scan, "files", ()))))
    described = getattr(scan, "described", None)
    files = [_file_identity(name) for name in files_of(names)]
    if not hasattr(scan, "files") and files[0] == {"name": scan.name}:
        files[0]["unknown"] = True
    return {
        **({} if described is None else {"described": described}),
        "path": os.path.abspath(scan.name) if is_local_path(scan.name) else scan.name,
        "shape": list(scan.shape),
        "channels": list(scan.channels),
        "dtype": str(scan.dtype),
        "files": files,
    }


def unknown_files(identity: dict[str, Any]) -> list[str]:
    """Return the names in a scan's identity of files of which nothing tells whether they changed.

    Args:
        identity: What :func:`scan_identity` returned.
    """
    return [file.get("url") or file["name"] for file in identity["files"] if file.get("unknown")]


def format_versions(ndim: int) -> dict[str, str]:
    """Return the versions of the libraries that read and write scans of so many axes."""
    if ndim == 2:
        import rasterio

        return {"rasterio": rasterio.__version__, "GDAL": rasterio.__gdal_version__}
    import zlib

    import nibabel

    return {"nibabel": nibabel.__version__, "zlib": zlib.ZLIB_RUNTIME_VERSION}


def files_of(names: Iterable[str]) -> list[str]:
    """Return files with those that are read beside them or instead of them, each once.

    Those are the sources of VRTs, of which GDAL names one level only, masks, and what belongs to
    a Shapefile or to a GeoPackage that is being written.

    Args:
        names: Files, or other names that GDAL opens.
    """
    found: dict[str, str] = {}
    left = list(names)
    while left:
        name = left.pop(0)
        place = os.path.abspath(name) if is_local_path(name) else name
        if place in found:
            continue
        found[place] = name
        beside = [name + suffix for suffix in _BESIDE]
        if name.lower().endswith(".shp"):
            beside += [name[:-4] + suffix for suffix in _SHAPEFILE]
        left.extend(other for other in beside if os.path.isfile(other))
        if is_vrt(name) or name.lower().endswith(".vrt"):
            left.extend((*vrt_sources(name), *_listed_files(name)))
    return list(found.values())


def _listed_files(name: str) -> list[str]:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with (
            warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
            rasterio.open(name) as source,
        ):
            return list(source.files)
    except (RasterioError, OSError):  # found again, and told, when its pixels are read
        return []


def _file_identity(name: str) -> dict[str, Any]:
    if is_service(name):
        return {"name": name, "unknown": True}
    if is_vrt(name) and not os.path.isfile(name):  # all that it is stands in its name
        return {"name": name}
    url = url_in(name)
    if url is not None:
        return {"url": url, **(remote_identity(url, HEAD_BYTES) or {"unknown": True})}
    path = _container(name)
    try:
        status = os.stat(path)
        with open(path, "rb") as file:
            head = hashlib.sha256(file.read(HEAD_BYTES)).hexdigest()
    except OSError:
        # A local file that is not there is an error as soon as it is read; other names mean
        # something to GDAL only.
        return {"name": name} if is_local_path(name) else {"name": name, "unknown": True}
    return {
        "path": os.path.abspath(path),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "head": head,
    }


def _container(name: str) -> str:
    """Return the file that holds what a name such as ``/vsizip/...`` or ``NETCDF:...`` means."""
    inner = name
    while prefix := next((one for one in _VSI_PREFIXES if inner.startswith(one)), ""):
        inner = inner[len(prefix) :]
        if prefix == "/vsisubfile/":  # /vsisubfile/offset_size,file
            inner = inner.partition(",")[2]
    if inner != name:
        inner = inner.strip("{").replace("}", "")
        while inner and not os.path.isfile(inner):
            inner = os.path.dirname(inner) if os.path.dirname(inner) != inner else ""
        return inner
    if is_local_path(name):
        return name
    parts = name.split(":")
    spans = [(i, j) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)]
    named = (":".join(parts[i:j]).strip('"') for i, j in spans)
    return max((one for one in named if os.path.isfile(one)), key=len, default=name)
