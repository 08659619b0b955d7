"""The report in a real browser, as a person uses it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from scored import Reading, dataset

import segfocal as sf
from segfocal.report import run_page

DATA_SPECS = Path(__file__).resolve().parents[2] / "data_specs"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("needs Chromium or Chrome")
    with api.sync_playwright() as play:
        running = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    spec, _ = dataset(folder, 2, cases=3)
    return folder / "out" / "scores.html", sf.evaluate(Reading(2), spec, out=folder / "out")


@pytest.fixture
def page(browser, report):
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.troubles = []
    page.on("console", lambda message: page.troubles.append(message.text))
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on("request", lambda request: page.troubles.append(request.url)
            if not request.url.startswith(("file:", "data:")) else None)  # fmt: skip
    page.goto(report[0].as_uri())
    yield page
    assert page.troubles == []
    page.close()


def test_a_click_on_a_heading_sorts_the_table_and_another_turns_it_round(page, report):
    rows = page.locator("#cases tbody tr")
    heading = page.get_by_role("button", name="accuracy")
    by_score = sorted(report[1].cases, key=lambda case: -case.accuracy)
    expected = [case.case for case in by_score]

    def order():
        return [row.split("\t")[0].strip() for row in rows.all_inner_texts()]

    heading.click()
    assert order() == expected
    assert heading.locator("..").get_attribute("aria-sort") == "descending"
    heading.click()
    assert order() == expected[::-1]
    page.get_by_role("button", name="case", exact=True).click()
    assert order() == ["case0", "case1", "case2"]
    assert heading.locator("..").get_attribute("aria-sort") is None


def test_the_slider_and_the_choice_change_what_lies_over_the_scan(page):
    view = page.locator("#view1")
    shown = view.locator("img[data-layer]:visible")
    assert shown.get_attribute("data-layer") == "prediction"
    slider = view.get_by_role("slider", name="opacity")
    box = slider.bounding_box()
    slider.click(position={"x": 1, "y": box["height"] / 2})
    assert shown.evaluate("image => getComputedStyle(image).opacity") == "0"
    assert view.locator("output").inner_text() == "0 %"
    slider.press("End")
    assert shown.evaluate("image => getComputedStyle(image).opacity") == "1"
    view.get_by_label("errors").check()
    assert shown.get_attribute("data-layer") == "errors"
    other = page.locator("#view0 img[data-layer]:visible")
    assert other.get_attribute("data-layer") == "prediction"
    assert other.evaluate("image => getComputedStyle(image).opacity") == "0.6"


def test_every_picture_is_drawn_with_the_shape_of_its_scan(page):
    for image in page.locator(".stack img:visible").all():
        width, height = image.evaluate("image => [image.naturalWidth, image.naturalHeight]")
        assert (width, height) == (47, 61)
        box = image.bounding_box()
        assert box["width"] / box["height"] == pytest.approx(47 / 61, rel=0.02)


@pytest.mark.parametrize("width", [360, 1200])
def test_only_tables_scroll_sideways(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for part in page.locator(".tile, .view, input, svg").all():
        box = part.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


BROKEN_WORDS = """
() => [...document.querySelectorAll(".facts th")].flatMap(head => {
  const texts = [...head.childNodes].filter(node => node.nodeType === Node.TEXT_NODE);
  return texts.flatMap(node => [...node.data.matchAll(/\\S+/g)].filter(word => {
    const range = document.createRange();
    range.setStart(node, word.index);
    range.setEnd(node, word.index + word[0].length);
    return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size > 1;
  }).map(word => word[0]));
})
"""


@pytest.mark.parametrize("width", [390, 1200])
def test_names_are_not_broken_within_words_and_reasons_have_room(browser, tmp_path, width):
    spec = sf.load_spec(DATA_SPECS / "nc_landcover.yaml")
    plan = sf.make_plan(spec)
    place = tmp_path / "report.html"
    place.write_text(run_page(spec, plan, [{"step": 1, "loss": 1.0}]))
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(place.as_uri())
    assert page.evaluate(BROKEN_WORDS) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    table = page.locator(".reasons").bounding_box()
    for cell in page.locator(".reasons td:last-child:not(:empty)").all():
        assert cell.bounding_box()["width"] > 0.4 * table["width"]
    page.close()
