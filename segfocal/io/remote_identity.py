"""What a server says of a file, by which a later run knows that it is the same."""

from __future__ import annotations

import hashlib
import http.client
import urllib.parse
import urllib.request
from typing import Any

from segfocal.errors import ScanError
from segfocal.io.network import is_network_forbidden

__all__ = ["remote_identity", "url_in"]

_TIMEOUT_SECONDS = 30
_OPTIONS = "/vsicurl?"


def url_in(name: str) -> str | None:
    """Return the URL in a name such as ``/vsizip//vsicurl/https://...``, or None."""
    if _OPTIONS in name:
        options = urllib.parse.parse_qs(name[name.index(_OPTIONS) + len(_OPTIONS) :])
        return options.get("url", [None])[0]
    for scheme in ("https://", "http://"):
        if scheme in name:
            return name[name.index(scheme) :]
    return None


def remote_identity(url: str, head_bytes: int) -> dict[str, Any]:
    """Return what a server says of a file as a JSON value; empty when it says nothing.

    Where the headers tell no more than a length, the hash of the first bytes counts too.

    Args:
        url: Address of the file.
        head_bytes: How many bytes are its first.

    Raises:
        ScanError: The network is forbidden.
    """
    if is_network_forbidden():
        raise ScanError(
            f"{url}: is not a local file, and only local files may be read (--local-only): copy "
            "it to this machine first"
        )
    facts = _facts(urllib.request.Request(url, method="HEAD", headers=_headers()))
    if "ETag" in facts or "Last-Modified" in facts:
        return facts
    # Servers that refuse HEAD; signed addresses hold for one method only.
    asked = urllib.request.Request(
        url, headers={**_headers(), "Range": f"bytes=0-{head_bytes - 1}"}
    )
    return _facts(asked, head_bytes) or facts


def _headers() -> dict[str, str]:
    return {"User-Agent": "segfocal"}


def _facts(request: urllib.request.Request, head_bytes: int = 0) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
            headers = answer.headers
            head = answer.read(head_bytes) if head_bytes else b""
    except (OSError, ValueError, http.client.HTTPException):  # refusals, parts of archives
        return {}
    kept = ("ETag", "Last-Modified", "Content-Length")
    facts: dict[str, Any] = {name: headers[name] for name in kept if name in headers}
    if "Content-Range" in headers:  # the length is then that of the part
        facts.pop("Content-Length", None)
        total = headers["Content-Range"].rpartition("/")[2].strip()
        if total.isdigit():
            facts["Content-Length"] = total
    if facts and head_bytes:
        facts["head"] = hashlib.sha256(head).hexdigest()
    return facts
