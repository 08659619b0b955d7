"""The frame of a report: one HTML file with its style and script inside, no network needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from segfocal.card import LabelClass
from segfocal.report.assets import SCRIPT, STYLE
from segfocal.rounding import significant

__all__ = ["Cell", "facts", "legend", "page", "section", "swatch", "table", "text_of"]


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what it shows, as HTML, and what it is sorted by."""

    html: str
    key: float | str


def text_of(value: float | None, digits: int | None = 3) -> str:
    """Return a score as text; a dash where there is none.

    Args:
        value: The score.
        digits: Digits after the point; None: three significant ones, as for lengths, which may be
            in metres or in degrees.
    """
    if value is None or value != value:
        return "–"
    if value in (float("inf"), float("-inf")):
        return "∞"
    if digits is None:
        return significant(value)
    text = f"{value:.{digits}f}"
    return text if float(text) else text.removeprefix("-")  # no -0.00


def score_cell(value: float | None, digits: int | None = 3) -> Cell:
    """Return the cell of a score, see :func:`text_of`; what does not exist is sorted as least."""
    missing = value is None or value != value
    return Cell(text_of(value, digits), float("-inf") if missing else float(value))  # type: ignore[arg-type]


def count_cell(value: int) -> Cell:
    """Return the cell of a whole number."""
    return Cell(f"{value:,}".replace(",", " "), value)


def name_cell(name: str, color: tuple[int, int, int] | None = None) -> Cell:
    """Return the cell of a name, with the colour of its class."""
    mark = "" if color is None else swatch(color)
    return Cell(mark + escape(name), name)


def swatch(color: tuple[int, int, int]) -> str:
    """Return a little box of a colour."""
    return f'<i class="swatch" style="background:rgb{color}"></i>'


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, name: str) -> str:
    """Return a table that sorts when a heading is clicked.

    Args:
        columns: Headings; the first column holds names, the others numbers.
        rows: Cells.
        name: The table's ``id``.
    """
    head = "".join(
        f'<th scope="col"><button type="button">{escape(column)}</button></th>'
        for column in columns
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<td data-key="{escape(str(cell.key), quote=True)}">{cell.html}</td>' for cell in row
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table class="sortable" id="{name}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def facts(
    rows: Sequence[tuple[str, ...]], head: Sequence[str] = (), *, reasons: bool = False
) -> str:
    """Return a table of words: a name, and what there is to say about it.

    Args:
        rows: Names, each with its cells.
        head: Headings, or none.
        reasons: The last cell is the longest, and on a narrow screen stands below the others.
    """
    top = "".join(f"<th>{escape(column)}</th>" for column in head)
    body = "".join(
        f"<tr><th>{_breakable(name)}</th>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    top = f"<thead><tr>{top}</tr></thead>" if top else ""
    kind = "facts reasons" if reasons else "facts"
    return f'<div class="wide"><table class="{kind}">{top}<tbody>{body}</tbody></table></div>'


def _breakable(name: str) -> str:
    """Return a name as HTML that may be broken after its full stops, and nowhere within words."""
    return escape(name).replace(".", ".<wbr>")


def legend(classes: Sequence[LabelClass]) -> str:
    """Return the classes with their colours and values."""
    entries = "".join(
        f"<li>{swatch(label.color)}{escape(label.name)} <small>{label.value}</small></li>"
        for label in classes
    )
    return f'<ul class="legend">{entries}</ul>'


def section(title: str, *parts: str) -> str:
    """Return a section of the page."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def page(title: str, subtitle: str, parts: Sequence[str]) -> str:
    """Return the whole page.

    Args:
        title: What the page is about.
        subtitle: A line below it.
        parts: Sections.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # Nothing may be fetched, whatever a name or a note in the data says.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>"
        f"<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header>\n"
        + "\n".join(part for part in parts if part)
        + f"\n</main><script>{SCRIPT}</script></body></html>\n"
    )
