"""Plots as SVG files of their own, which need no library: bars, and lines on logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

__all__ = ["bar_plot", "line_plot"]

WIDTH = 760
LETTER = 7
"""About the width of a letter."""

COLORS = ("#2a6f97", "#c8553d", "#588157", "#7b5ea7", "#b08900")
INK, SOFT, LINE = "#222222", "#666666", "#dddddd"


def bar_plot(path: Path, title: str, values: Mapping[str, float], unit: str, ours: str) -> None:
    """Write a plot with a bar for each name.

    Args:
        path: The ``.svg``.
        title: What is drawn.
        values: Lengths of the bars.
        unit: Of the lengths.
        ours: Names that begin with this are drawn in another colour.
    """
    right, top, step = 110, 46, 26
    left = max(250, 16 + LETTER * max(map(len, values)))
    longest = max(values.values())
    parts = []
    for number, (name, value) in enumerate(values.items()):
        y = top + step * number
        length = (WIDTH - left - right) * value / longest
        color = COLORS[0] if name.startswith(ours) else COLORS[1]
        parts += [
            _text(left - 8, y + 14, name, "end"),
            f'<rect x="{left}" y="{y}" width="{length:.2f}" height="18" fill="{color}"/>',
            _text(left + length + 6, y + 14, f"{_number(value)} {unit}"),
        ]
    _write(path, title, top + step * len(values) + 10, parts)


def line_plot(
    path: Path,
    title: str,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    x_label: str,
    y_label: str,
) -> None:
    """Write a plot with a line for each name; both axes are logarithmic.

    Args:
        path: The ``.svg``.
        title: What is drawn.
        curves: Points ``(x, y)`` above zero, by name; where a line ends, it ends.
        x_label, y_label: What the axes are.
    """
    left, right, top, high = 80, 20, 46, 300
    points = [point for curve in curves.values() for point in curve]
    x_range = _decades([x for x, _ in points], 2)
    y_range = _decades([y for _, y in points], 10)
    parts = []
    for y in y_range:
        down = top + high * (1 - _share(y, y_range))
        parts += [
            f'<line x1="{left}" x2="{WIDTH - right}" y1="{down:.1f}" y2="{down:.1f}" '
            f'stroke="{LINE}"/>',
            _text(left - 8, down + 4, f"{y:,g}", "end"),
        ]
    for x in x_range:
        across = left + (WIDTH - left - right) * _share(x, x_range)
        parts.append(_text(across, top + high + 18, f"{x:g}", "middle"))
    parts += [
        _text((left + WIDTH - right) / 2, top + high + 38, x_label, "middle"),
        _text(left - 8, top - 8, y_label, "end"),
    ]
    for number, (name, curve) in enumerate(curves.items()):
        color = COLORS[number % len(COLORS)]
        places = [
            (
                left + (WIDTH - left - right) * _share(x, x_range),
                top + high * (1 - _share(y, y_range)),
            )
            for x, y in curve
        ]
        line = " ".join(f"{across:.1f},{down:.1f}" for across, down in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in places]
        y = top + high + 60 + 20 * number
        parts += [
            f'<rect x="{left}" y="{y - 9}" width="14" height="10" fill="{color}"/>',
            _text(left + 22, y, name),
        ]
    _write(path, title, top + high + 66 + 20 * len(curves), parts)


def _number(value: float) -> str:
    """Return a number with three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _decades(values: Sequence[float], base: int) -> list[float]:
    """Return powers of a base that enclose the values."""
    low = math.floor(math.log(min(values), base) + 1e-9)
    high = math.ceil(math.log(max(values), base) - 1e-9)
    return [float(base) ** power for power in range(low, max(high, low + 1) + 1)]


def _share(value: float, around: Sequence[float]) -> float:
    return math.log(value / around[0]) / math.log(around[-1] / around[0])


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _write(path: Path, title: str, height: float, parts: Sequence[str]) -> None:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'font-family="sans-serif" font-size="13" fill="{INK}">\n'
        f"<title>{escape(title)}</title>\n"
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="white"/>\n'
        f'<text x="12" y="24" font-size="15" fill="{SOFT}">{escape(title)}</text>\n'
    )
    path.write_text(head + "\n".join(parts) + "\n</svg>\n", encoding="utf-8")
