"""Path patterns against a slow and obvious search."""

from __future__ import annotations

import re

import pytest

from segfocal.data.patterns import fill_in, find_files, group_names, match_text, parse_pattern

FILES = (
    "rome/images/tile_1.tif", "rome/images/tile_12.tif", "rome/masks/tile_1.tif",
    "oslo/images/tile_1.tif", "oslo/images/notes.txt", "deep/a/b/c/tile_7.tif",
    "sub-01/sub-01_T1w.nii.gz", "sub-01/sub-02_T1w.nii.gz", "rome/images/._tile_1.tif", "top.tif",
)  # fmt: skip


@pytest.fixture
def tree(tmp_path):
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "expression"),
    [
        ("{city}/images/{id}.tif", r"(?P<city>[^/]+)/images/(?P<id>[^/]+)\.tif"),
        (r"{city}/images/tile_{id:\d}.tif", r"(?P<city>[^/]+)/images/tile_(?P<id>\d)\.tif"),
        ("{s}/{s}_T1w.nii.gz", r"(?P<s>[^/]+)/(?P=s)_T1w\.nii\.gz"),
        ("**/{id}.tif", r"(?:.*/)?(?P<id>[^/]+)\.tif"),
        ("rome/**/tile_{n}.tif", r"rome/(?:.*/)?tile_(?P<n>[^/]+)\.tif"),
        ("*/images/{id}.*", r"[^/]*/images/(?P<id>[^/]+?)\.[^/]*"),
        ("top.tif", r"top\.tif"),
        ("nowhere/{id}.tif", r"nowhere/(?P<id>[^/]+)\.tif"),
        ("./rome/images/tile_{id}.tif", r"rome/images/tile_(?P<id>[^/]+)\.tif"),
    ],
)
def test_files_are_found_as_a_regular_expression_over_all_paths_finds_them(
    tree, pattern, expression
):
    everything = sorted(name for name in FILES if "/." not in name)
    expected = [
        (name, found.groupdict())
        for name in everything
        if (found := re.fullmatch(expression, name))
    ]
    assert find_files(pattern, tree) == expected
    if "nowhere" not in pattern:
        assert expected


def test_an_absolute_pattern_finds_absolute_paths(tree, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    found = find_files(f"{tree}/rome/masks/{{id}}.tif", elsewhere)
    assert found == [(f"{tree}/rome/masks/tile_1.tif", {"id": "tile_1"})]


def test_a_pattern_is_filled_in_when_nothing_stays_open():
    assert fill_in("{city}/x_{id:[0-9]{2}}.tif", {"city": "rome", "id": "07"}) == "rome/x_07.tif"
    assert fill_in("{city}/x_{id}.tif", {"city": "rome"}) is None
    assert fill_in("{city}/*.tif", {"city": "rome"}) is None
    assert group_names("{b}/{a}_{b}.tif") == ("b", "a")


def test_filling_in_and_matching_are_inverse():
    pattern, groups = r"{event}_{id:\d+}_S1Hand.tif", {"event": "Ghana", "id": "103272"}
    text = fill_in(pattern, groups)
    assert match_text(pattern, text) == groups
    assert match_text(pattern, text + "x") is None


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{city/x.tif", "a brace that is no group"),
        ("{}.tif", "a brace that is no group"),
        ("{id:[}.tif", "is no regular expression"),
        ("{id:(a)}.tif", "has a group inside"),
        ("{id:[^/]*}.tif", "has a /; expected a group within one part"),
    ],
)
def test_a_wrong_pattern_is_named(pattern, expected):
    with pytest.raises(ValueError, match=expected):
        parse_pattern(pattern)
