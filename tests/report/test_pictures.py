"""Pictures, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from segfocal.card import LabelClass
from segfocal.errors import OutputExistsError
from segfocal.report import Panel, blend_labels, colorize, draw_sheet, mark_errors, stretch

GREY = [225, 225, 225]
CLASSES = (
    LabelClass(value=9, name="land", color=(10, 20, 30)),
    LabelClass(value=0, name="water", color=(0, 0, 255)),
    LabelClass(value=4, name="town", color=(255, 100, 1)),
)


def test_values_are_stretched_between_the_first_and_the_last_percentile():
    values = np.arange(101, dtype="float32").reshape(1, 101, 1)
    picture = stretch(values, np.ones((1, 101), bool))
    # 1 becomes 0 and 99 becomes 255.
    expected = [round(min(max((v - 1) / 98, 0), 1) * 255) for v in range(101)]
    assert picture.dtype == np.uint8
    assert picture[0].tolist() == [[v, v, v] for v in expected]


def test_three_channels_are_stretched_each_for_itself():
    ramp = np.arange(101.0)
    values = np.stack([ramp, -1000 * ramp, np.full(101, 7.0)], -1)[None]
    picture = stretch(values, np.ones((1, 101), bool))
    assert picture[0, [0, 50, 100]].tolist() == [[0, 255, 0], [128, 128, 0], [255, 0, 0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -9999])
def test_invalid_pixels_are_grey_and_do_not_take_part(bad):
    values = np.append(np.arange(101.0), bad).reshape(1, 102, 1)
    valid = np.arange(102)[None] < 101
    picture = stretch(values, valid)
    assert picture[0, 101].tolist() == GREY
    np.testing.assert_array_equal(picture[:, :101], stretch(values[:, :101], valid[:, :101]))


def test_a_picture_without_valid_pixels_is_grey_and_a_constant_one_black():
    nothing = np.full((2, 2, 3), np.nan)
    assert (stretch(nothing, np.zeros((2, 2), bool)) == GREY[0]).all()
    assert (stretch(np.full((2, 2, 1), 5.0), np.ones((2, 2), bool)) == 0).all()


def test_indices_get_the_colours_of_their_classes():
    assert colorize(np.array([[0, 1], [2, -1]]), CLASSES).tolist() == [
        [[10, 20, 30], [0, 0, 255]],
        [[255, 100, 1], GREY],
    ]


def test_all_classes_but_the_first_are_laid_half_transparent():
    picture = np.full((1, 4, 3), 100, np.uint8)
    found = blend_labels(picture, np.array([[0, 1, 2, -1]]), CLASSES)
    # Halves are rounded to even: (100 + 255) / 2 = 177.5, (100 + 1) / 2 = 50.5.
    assert found.tolist() == [
        [[100, 100, 100], [50, 50, 178], [178, 100, 50], [100, 100, 100]],
    ]
    assert found.dtype == np.uint8


def test_errors_are_red_agreement_green_and_the_rest_grey():
    reference = np.array([[0, 1, 2], [-1, 1, -1]])
    found = np.array([[0, 2, 2], [1, -1, -1]])
    right, wrong = [205, 222, 205], [200, 30, 60]
    assert mark_errors(reference, found).tolist() == [[right, wrong, right], [GREY, GREY, GREY]]


def enlarged(picture: np.ndarray, factor: int) -> np.ndarray:
    return picture.repeat(factor, 0).repeat(factor, 1)


@pytest.fixture
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    # Scaled to 60 pixels, they are 100, 60 and 30 high.
    return [rng.integers(0, 256, (*s, 3)).astype(np.uint8) for s in ((5, 3), (2, 2), (2, 4))]


def test_a_sheet_shows_each_panel_at_its_place_pixel_for_pixel(tmp_path, pictures):
    first, second, third = pictures
    path = tmp_path / "sheet.png"
    rows = [[Panel("a", first), Panel("b", second)], [Panel("c", third)]]
    draw_sheet(path, "Title", rows, CLASSES, panel_width=60)
    with Image.open(path) as image:
        assert image.format == "PNG"
        sheet = np.asarray(image.convert("RGB"))
    # Margin 16, title 30; a row is as high as its tallest panel, 100, plus caption 26 and margin.
    tops, lefts = (16 + 30, 16 + 30 + 100 + 26 + 16), (16, 16 + 60 + 16)
    np.testing.assert_array_equal(
        sheet[tops[0] : tops[0] + 100, lefts[0] : lefts[0] + 60], enlarged(first, 20)
    )
    np.testing.assert_array_equal(
        sheet[tops[0] : tops[0] + 60, lefts[1] : lefts[1] + 60], enlarged(second, 30)
    )
    np.testing.assert_array_equal(
        sheet[tops[1] : tops[1] + 30, lefts[0] : lefts[0] + 60], enlarged(third, 15)
    )
    assert sheet.shape[1] == 2 * 60 + 3 * 16
    # Paper around the panels, and nothing where no panel is.
    assert (sheet[:, :16] == 255).all()
    assert (sheet[tops[1] : tops[1] + 30, lefts[1] :] == 255).all()
    # Title and captions leave ink.
    for top in (16, tops[0] + 100 + 4, tops[1] + 30 + 4):
        assert (sheet[top : top + 22, :80] < 100).any()


@pytest.mark.parametrize(("panel_width", "legend_rows"), [(600, 1), (300, 2), (150, 3)])
def test_the_legend_has_a_box_of_each_class_colour(tmp_path, panel_width, legend_rows):
    path = tmp_path / "sheet.png"
    panel = Panel("", np.zeros((1, 10, 3), np.uint8))
    classes = [
        LabelClass(value=i, name=f"class number {i}", color=color)
        for i, color in enumerate([(17, 255, 60), (40, 235, 61), (3, 2, 200)])
    ]
    draw_sheet(path, "", [[panel]], classes, panel_width=panel_width)
    with Image.open(path) as image:
        sheet = np.asarray(image.convert("RGB"))
    legend = sheet[16 + 30 + panel_width // 10 + 26 + 16 :]
    assert len(legend) == legend_rows * 26 + 16
    order = []
    for label in classes:
        rows, cols = np.nonzero((legend == label.color).all(-1))
        # A box of 15 x 17 with its frame, filled.
        assert (np.ptp(rows) + 1, np.ptp(cols) + 1, len(rows)) == (13, 15, 13 * 15)
        assert (rows.min() - 4) % 26 == 0
        order.append((rows.min(), cols.min()))
    assert order == sorted(order)
    assert len({row for row, _ in order}) == legend_rows


def test_an_existing_sheet_is_replaced_only_when_asked(tmp_path, pictures):
    path = tmp_path / "sheet.png"
    path.write_bytes(b"mine")
    rows = [[Panel("a", pictures[0])]]
    with pytest.raises(OutputExistsError, match=r"sheet\.png"):
        draw_sheet(path, "Title", rows, CLASSES)
    assert path.read_bytes() == b"mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["sheet.png"]
    draw_sheet(path, "Title", rows, CLASSES, overwrite=True)
    with Image.open(path) as image:
        assert np.asarray(image)[46, 16].tolist() == pictures[0][0, 0].tolist()
    assert [entry.name for entry in tmp_path.iterdir()] == ["sheet.png"]
