"""The class table: codes to class indices, regions, colours."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from segfocal.card import IGNORE_INDEX
from segfocal.data.classes import (
    ClassEntry,
    class_table,
    label_classes,
    packed_color,
    vector_values,
)


def entry(value, name, *meanings, **options):
    return ClassEntry.model_validate(
        {"value": value, "name": name, "from": list(meanings), **options}
    )


def test_codes_are_looked_up_as_a_dictionary_would():
    rng = np.random.default_rng(0)
    entries = [entry(3, "a", 7, -4), entry(1, "b"), entry(9, "c", 50, 60, 70)]
    table = class_table(entries, (255, -1), "values")
    known = {7: 0, -4: 0, 1: 1, 50: 2, 60: 2, 70: 2}
    codes = rng.choice([7, -4, 1, 50, 60, 70, 255, -1, 3, 9, 2**30, -(2**30)], (40, 50))
    index, stray = table.index(codes)
    expected = np.vectorize(lambda code: known.get(code, IGNORE_INDEX))(codes)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(stray, ~np.isin(codes, [*known, 255, -1]))


def test_regions_hold_all_the_values_that_make_them_up():
    entries = [entry(1, "whole", 1, 2, 3), entry(2, "core", 2, 3), entry(3, "active", 3)]
    table = class_table(entries, (), "values", overlapping=True)
    codes = np.array([0, 1, 2, 3, 4])
    index, stray = table.index(codes)
    assert stray.tolist() == [False, False, False, False, True]
    assert index[4] == IGNORE_INDEX
    assert table.members[index[:4]].astype(int).tolist() == [
        [0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1],
    ]  # fmt: skip


def test_an_ignored_value_is_in_no_region_and_a_region_may_hold_what_is_in_no_other():
    entries = [entry(1, "all", 0, 4), entry(2, "inner", 4), entry(9, "unsure", 7, ignore=True)]
    table = class_table(entries, (255,), "values", overlapping=True)
    index, stray = table.index(np.array([0, 4, 7, 255, 1]))
    assert (index[2:] == IGNORE_INDEX).all()
    assert stray.tolist() == [False, False, False, False, True]
    assert table.members[index[:2]].astype(int).tolist() == [[1, 0], [1, 1]]


def test_exclusive_classes_are_their_own_labels():
    table = class_table([entry(3, "a", 7, -4), entry(1, "b")], (), "values")
    np.testing.assert_array_equal(table.members, np.eye(2, dtype=bool))
    assert table.label_codes == ((7, -4), (1,))


def test_a_packed_colour_is_read_back():
    table = class_table([entry(0, "a", color=(1, 2, 3)), entry(1, "b", (255, 0, 9))], (), "colors")
    assert table.text(packed_color((255, 0, 9))) == "(255, 0, 9)"
    assert table.codes == ((packed_color((1, 2, 3)),), (packed_color((255, 0, 9)),))


def test_colours_are_chosen_where_none_is_given_and_ignored_classes_have_no_index():
    classes = label_classes(
        [entry(0, "a"), entry(5, "b", ignore=True), entry(2, "c", color=(7, 8, 9)), entry(3, "d")]
    )
    assert [(c.value, c.name) for c in classes] == [(0, "a"), (2, "c"), (3, "d")]
    assert classes[0].color == (0, 0, 0)
    assert classes[1].color == (7, 8, 9)
    assert len({c.color for c in classes}) == 3
    first = label_classes([entry(1, "x"), entry(2, "y")])
    assert (0, 0, 0) not in [c.color for c in first], "black is for a background"


def test_texts_of_polygons_are_names_unless_others_are_given():
    entries = [entry(0, "other"), entry(1, "wheat", "Weizen", 12), entry(2, "rye")]
    assert vector_values(entries) == {"other": 0, "Weizen": 1, "12": 1, "rye": 2}


@pytest.mark.parametrize("wrong", [1.5, True, "", [1, 2], [1, 2, 256], [1, 2, "3"], None, 2**31])
def test_a_meaning_is_a_number_a_text_or_a_colour(wrong):
    with pytest.raises(ValidationError, match="expected a whole number, a text, or a colour"):
        entry(0, "a", wrong)


@pytest.mark.parametrize(
    ("kind", "wrong", "expected"),
    [
        ("values", entry(0, "a", "text"), "from 'text' is no whole number"),
        ("colors", entry(0, "a", 3), "from 3 is no colour of three numbers"),
        ("colors", entry(0, "a"), "has no colour"),
    ],
)
def test_a_meaning_of_another_kind_is_refused(kind, wrong, expected):
    with pytest.raises(ValueError, match=expected):
        class_table([wrong], (), kind)
