"""Charts and tables of the reports: the numbers in them are the numbers given."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from segfocal.card import LabelClass
from segfocal.report.charts import confusion_table, line_chart, ticks
from segfocal.report.page import page, score_cell, table

CLASSES = tuple(
    LabelClass(value=k, name=name, color=(k, 0, 9)) for k, name in enumerate(("a", "b<", "c"))
)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.2, 0.9), (-3, 7), (0, 1234), (5, 5), (0, 0), (0.999, 1.0001)]
)
def test_ticks_enclose_the_range_with_round_and_even_steps(low, high):
    found = ticks(low, high, 5)
    assert found[0] <= low + 1e-9
    assert found[-1] >= high - 1e-9
    assert 2 <= len(found) <= 8
    steps = np.diff(found)
    np.testing.assert_allclose(steps, steps[0])
    digits = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-9)
    assert min(abs(digits - nice) for nice in (1, 2, 2.5, 5)) < 1e-6


def circles(html):
    svg = ElementTree.fromstring(re.search(r"<svg.*?</svg>", html, re.DOTALL).group())
    return [(float(c.get("cx")), float(c.get("cy"))) for c in svg.iter("circle")]


def test_points_lie_where_their_numbers_are():
    places = circles(line_chart("loss", {"training": [(0, 1), (50, 2), (100, 4)]}, "step"))
    (x0, y0), (x1, y1), (x2, y2) = places
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert (y0 - y1) * 2 == pytest.approx(y1 - y2, abs=0.2)
    assert y0 > y1 > y2, "larger is higher up"


def test_what_is_not_finite_is_not_drawn_and_nothing_draws_nothing():
    points = [(0, 1.0), (1, math.nan), (2, math.inf), (3, 2.0)]
    assert len(circles(line_chart("loss", {"training": points}, "step"))) == 2
    assert line_chart("loss", {"training": [(0, math.nan)]}, "step") == ""
    both = line_chart("a & b", {"training": points, "validation": points}, "step")
    assert len(circles(both)) == 4
    assert "a &amp; b" in both
    assert "validation</span>" in both


def test_a_row_of_the_confusion_matrix_is_in_per_cent_of_its_class():
    matrix = np.array([[3, 1, 0], [0, 0, 0], [1, 998, 1]])
    html = confusion_table(matrix, CLASSES)
    cells = [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<td.*?</td>", html)]
    assert cells == ["75", "25", "", "–", "–", "–", "&lt;1", "100", "&lt;1"]
    assert "998 pixels of c taken for b&lt;" in html


def test_missing_scores_sort_below_all_others():
    cells = [score_cell(value) for value in (0.5, math.nan, None, math.inf, -2.0)]
    assert [cell.html for cell in cells] == ["0.500", "–", "–", "∞", "-2.000"]
    assert [cell.key for cell in cells] == [0.5, -math.inf, -math.inf, math.inf, -2.0]


def test_a_page_fetches_nothing_and_hides_no_markup_of_its_data():
    html = page("<b>", "a & b", [table(["<i>"], [[score_cell(1.0)]], name="t")])
    assert "<b>" not in html
    assert "<i>" not in html
    assert not re.search(r"(?:src|href)=[\"'](?!data:)|https?://|@import|url\(", html)
    assert "default-src 'none'" in html
