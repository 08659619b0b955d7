"""Charts as SVG inside the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from segfocal.card import LabelClass
from segfocal.report.page import swatch
from segfocal.scores import Calibration

__all__ = ["confusion_table", "line_chart", "reliability_chart"]

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 18, 10, 36
COLORS = ("--a", "--b", "--c", "--d")

Points = Sequence[tuple[float, float]]


def line_chart(title: str, curves: Mapping[str, Points], x_label: str) -> str:
    """Return a figure with a curve for each name.

    Args:
        title: What is drawn.
        curves: Points ``(x, y)`` per name; what is not finite is left out.
        x_label: What x is.
    """
    kept = {
        name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        for name, points in curves.items()
    }
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return ""
    xs = [x for points in kept.values() for x, _ in points]
    ys = [y for points in kept.values() for _, y in points]
    x_ticks, y_ticks = ticks(min(0.0, *xs), max(xs), 5), ticks(min(ys), max(ys), 5)
    parts, keys = [_axes(x_ticks, y_ticks, x_label)], []
    for number, (name, points) in enumerate(kept.items()):
        color = f"var({COLORS[number % len(COLORS)]})"
        places = [(_along(x, x_ticks), _up(y, y_ticks)) for x, y in points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="curve" points="{line}" style="stroke:{color}"/>')
        for (x, y), (across, down) in zip(points, places, strict=True):
            parts.append(
                f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3" style="fill:{color}">'
                f"<title>{escape(name)}: {y:.4g} at {x:g}</title></circle>"
            )
        keys.append(f'<span class="key"><i style="background:{color}"></i>{escape(name)}</span>')
    drawn = "".join(parts)
    return (
        f"<figure><h3>{escape(title)}</h3>{_svg(title, drawn)}"
        f"<figcaption>{''.join(keys) if len(keys) > 1 else ''}</figcaption></figure>"
    )


def reliability_chart(calibration: Calibration) -> str:
    """Return how often the network is right against how sure it is."""
    whole = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    parts = [_axes(whole, whole, "highest probability")]
    ends = [(_along(v, whole), _up(v, whole)) for v in (0.0, 1.0)]
    (x0, y0), (x1, y1) = ends
    bins = len(calibration.pixels)
    total = max(int(calibration.pixels.sum()), 1)
    for number in range(bins):
        if not calibration.pixels[number]:
            continue
        right, confidence = float(calibration.right[number]), float(calibration.confidence[number])
        left, top = _along(number / bins, whole), _up(right, whole)
        width = _along((number + 1) / bins, whole) - left - 1
        share = calibration.pixels[number] / total
        parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{y0 - top:.1f}" '
            f'style="fill:var(--a);opacity:{0.25 + 0.75 * min(1.0, 4 * share):.2f}">'
            f"<title>{share:.1%} of pixels: confidence {confidence:.3f}, right {right:.3f}"
            "</title></rect>"
        )
    parts.append(
        f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" '
        'style="stroke:var(--b)" stroke-width="1.5" stroke-dasharray="5 4"/>'
    )
    title = "Share of right pixels by the highest probability"
    return f"<figure><h3>{title}</h3>{_svg(title, ''.join(parts))}</figure>"


def confusion_table(matrix: NDArray[np.int64], classes: Sequence[LabelClass]) -> str:
    """Return the confusion matrix as a table: per cent of each class of the reference."""
    rows = []
    for k, label in enumerate(classes):
        total = int(matrix[k].sum())
        cells = []
        for j in range(len(classes)):
            share = matrix[k, j] / total if total else 0.0
            ink = ";color:#fff" if share > 0.55 else ""
            shown = f"{100 * share:.0f}" if share >= 0.005 else ("" if not matrix[k, j] else "<1")
            own = ' class="own"' if j == k else ""
            cells.append(
                f'<td{own} style="background:rgba(var(--strong),{0.95 * share:.3f}){ink}" '
                f'title="{matrix[k, j]} pixels of {escape(label.name, quote=True)} taken for '
                f'{escape(classes[j].name, quote=True)}">{escape(shown) if total else "–"}</td>'
            )
        rows.append(f"<tr><th>{escape(label.name)} {swatch(label.color)}</th>{''.join(cells)}</tr>")
    heads = "".join(
        f'<th class="name">{swatch(label.color)}{escape(label.name)}</th>' for label in classes
    )
    return (
        '<div class="wide"><table class="confusion" id="confusion"><thead><tr>'
        f"<th>reference ↓ &nbsp; prediction →</th>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="note">Per cent of each class of the reference; pixels on hover.</p>'
    )


def ticks(low: float, high: float, number: int) -> list[float]:
    """Return round numbers, evenly spaced, that enclose a range."""
    span = high - low or abs(high) or 1.0
    raw = span / number
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * k for k in range(first, max(last, first + 1) + 1)]


def _along(x: float, around: Sequence[float]) -> float:
    return LEFT + (x - around[0]) / (around[-1] - around[0]) * (WIDTH - LEFT - RIGHT)


def _up(y: float, around: Sequence[float]) -> float:
    return HEIGHT - BOTTOM - (y - around[0]) / (around[-1] - around[0]) * (HEIGHT - TOP - BOTTOM)


def _axes(x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str) -> str:
    parts = []
    for y in y_ticks:
        down = _up(y, y_ticks)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down:.1f}" y2="{down:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{down + 4:.1f}" text-anchor="end">{y:.4g}</text>'
        )
    for x in x_ticks:
        parts.append(
            f'<text x="{_along(x, x_ticks):.1f}" y="{HEIGHT - BOTTOM + 16}" '
            f'text-anchor="middle">{_short(x)}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>'
    )
    return "".join(parts)


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"


def _svg(title: str, drawn: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">'
        f"{drawn}</svg>"
    )
