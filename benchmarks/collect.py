"""Put the tables of the pages into README.md.

    python benchmarks/collect.py

A place in README.md begins with `<!-- page: NAME.md -->` and ends with `<!-- end of page -->`; what
stands between the markers of NAME.md is copied there, or a line that it was not measured yet.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from tables import BEGIN, END

__all__ = ["collected"]

PLACE = re.compile(r"(<!-- page: (\w+\.md) -->\n).*?(<!-- end of page -->)", re.S)
NOT_YET = "Not measured yet."


def collected(text: str, folder: Path) -> str:
    """Return a page's text with the tables of other pages in their places.

    Args:
        text: The page.
        folder: Where the other pages are.

    Raises:
        ValueError: One of them has no tables between markers.
    """

    def filled(place: re.Match[str]) -> str:
        page = folder / place[2]
        if not page.exists():
            return f"{place[1]}\n{NOT_YET}\n\n{place[3]}"
        _, begun, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        tables, ended, _ = rest.partition(END)
        if not (begun and ended):
            raise ValueError(f"{page}: no tables; expected some between {BEGIN} and {END}")
        return f"{place[1]}\n{tables.strip()}\n\n{place[3]}"

    return PLACE.sub(filled, text)


if __name__ == "__main__":
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    readme = Path(__file__).with_name("README.md")
    readme.write_text(
        collected(readme.read_text(encoding="utf-8"), readme.parent), encoding="utf-8"
    )
