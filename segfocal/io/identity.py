"""Identity of a scan's files: what changes when the scan may have changed.

Local files are known by absolute path, size, time of last change and a hash of their first
bytes; remote ones by what their server says of them. Every file that a scan is read from
counts: the sources of a VRT, masks and ``.aux.xml`` beside a raster, both files of a pair.
"""

from __future__ import annotations

import hashlib
import os
import urllib.request
import warnings
from collections.abc import Iterable
from typing import Any

from segfocal.io.base import Scan
from segfocal.io.formats import is_local_path

__all__ = ["format_versions", "scan_identity"]

HEAD_BYTES = 2**16
_TIMEOUT_SECONDS = 30
_BESIDE = (".msk", ".aux.xml")  # GDAL names them only once it has looked into them
_VSI_PREFIXES = ("/vsizip/", "/vsitar/", "/vsigzip/", "/vsi7z/", "/vsirar/", "/vsisubfile/")


def scan_identity(scan: Scan) -> dict[str, Any]:
    """Return what tells a scan from another, and from itself before a change, as a JSON value.

    An array in memory has no identity beyond its name and shape.
    """
    names = list(dict.fromkeys((scan.name, *getattr(scan, "files", ()))))
    described = getattr(scan, "described", None)
    return {
        **({} if described is None else {"described": described}),
        "path": os.path.abspath(scan.name) if is_local_path(scan.name) else scan.name,
        "shape": list(scan.shape),
        "channels": list(scan.channels),
        "dtype": str(scan.dtype),
        "files": [_file_identity(name) for name in _with_sources(names)],
    }


def format_versions(ndim: int) -> dict[str, str]:
    """Return the versions of the libraries that read and write scans of so many axes."""
    if ndim == 2:
        import rasterio

        return {"rasterio": rasterio.__version__, "GDAL": rasterio.__gdal_version__}
    import zlib

    import nibabel

    return {"nibabel": nibabel.__version__, "zlib": zlib.ZLIB_RUNTIME_VERSION}


def _with_sources(names: Iterable[str]) -> list[str]:
    """Add sources of VRTs, of which GDAL names one level only, and files beside; each once."""
    found: dict[str, None] = {}
    left = list(names)
    while left:
        name = left.pop(0)
        if name in found:
            continue
        found[name] = None
        left.extend(name + suffix for suffix in _BESIDE if os.path.isfile(name + suffix))
        if name.lower().endswith(".vrt"):
            left.extend(_listed_files(name))
    return list(found)


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
    url = _url(name)
    if url is not None:
        return {"url": url, **_remote_identity(url)}
    path = _container(name)
    try:
        status = os.stat(path)
        with open(path, "rb") as file:
            head = hashlib.sha256(file.read(HEAD_BYTES)).hexdigest()
    except OSError:  # a name that only GDAL can resolve
        return {"name": name}
    return {
        "path": os.path.abspath(path),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "head": head,
    }


def _url(name: str) -> str | None:
    """Return the URL in a name such as ``/vsizip//vsicurl/https://...``, or None."""
    for scheme in ("https://", "http://"):
        if scheme in name:
            return name[name.index(scheme) :]
    return None


def _remote_identity(url: str) -> dict[str, Any]:
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "segfocal"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
            headers = answer.headers
    except (OSError, ValueError):  # servers that refuse HEAD, parts of archives
        return {}
    kept = ("ETag", "Last-Modified", "Content-Length")
    return {name: headers[name] for name in kept if name in headers}


def _container(name: str) -> str:
    """Return the file that holds what a ``/vsizip/``-like name stands for."""
    for prefix in _VSI_PREFIXES:
        if name.startswith(prefix):
            inner = name[len(prefix) :].strip("{").replace("}", "")
            while inner and not os.path.isfile(inner):
                inner = os.path.dirname(inner) if os.path.dirname(inner) != inner else ""
            return inner
    return name
