"""Splits: shares, folds, groups that stay together, and blocks that keep their distance."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from segfocal.data.cases import Case
from segfocal.data.spatial_blocks import apportioned, block_grid, buffered
from segfocal.data.spec import DatasetSpec
from segfocal.data.splits import SplitEntry, SplitRule, listed_splits, ruled_splits
from segfocal.errors import SpecError


def cases(count: int, patients: int | None = None) -> list[Case]:
    return [
        Case(
            id=f"c{n:03}",
            image=f"{n}.tif",
            labels=f"{n}.png",
            groups={} if patients is None else {"patient": f"p{n % patients}"},
        )
        for n in range(count)
    ]


def ids(regions) -> list[str]:
    return [region.case for region in regions]


@pytest.mark.parametrize("count", [3, 10, 97, 200])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_ratio_divides_all_cases_in_its_shares(count, seed):
    rule = SplitRule(ratio={"train": 0.7, "val": 0.1, "test": 0.2}, seed=seed)
    found = ruled_splits(rule, cases(count), None, None)
    together = list(itertools.chain(*map(ids, found.values())))
    assert sorted(together) == [case.id for case in cases(count)]
    for split, share in rule.ratio.items():
        assert len(found[split]) >= 1
        assert abs(len(found[split]) - share * count) <= 1.5
    again = ruled_splits(rule, cases(count)[::-1], None, None)
    assert again == found, "the order in which files are found makes no difference"


def test_another_seed_makes_another_division():
    first, second = (
        ruled_splits(SplitRule(ratio={"train": 1, "test": 1}, seed=seed), cases(40), None, None)
        for seed in (0, 1)
    )
    assert set(ids(first["test"])) != set(ids(second["test"]))


@pytest.mark.parametrize("group_by", [None, "patient"])
def test_folds_test_each_case_once(group_by):
    all_cases = cases(23, patients=7)
    tested: Counter[str] = Counter()
    for fold in range(5):
        found = ruled_splits(SplitRule(folds=5, fold=fold), all_cases, group_by, None)
        assert sorted(ids(found["train"]) + ids(found["val"])) == [case.id for case in all_cases]
        tested.update(ids(found["val"]))
        if group_by:
            patients = [
                {case.groups["patient"] for case in all_cases if case.id in ids(regions)}
                for regions in found.values()
            ]
            assert not patients[0] & patients[1]
    assert set(tested.values()) == {1}
    assert len(tested) == len(all_cases)


@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_never_in_two_splits(seed):
    all_cases = cases(60, patients=9)
    rule = SplitRule(ratio={"train": 3, "val": 1, "test": 1}, seed=seed)
    found = ruled_splits(rule, all_cases, "patient", None)
    owner: dict[str, set[str]] = {}
    for split, regions in found.items():
        assert regions
        for case in all_cases:
            if case.id in ids(regions):
                owner.setdefault(case.groups["patient"], set()).add(split)
    assert len(owner) == 9
    assert all(len(splits) == 1 for splits in owner.values())


@pytest.mark.parametrize(
    ("rule", "group_by", "expected"),
    [
        ({"ratio": {"a": 1, "b": 1, "c": 1, "d": 1}}, "patient", "3 values of group 'patient'"),
        ({"folds": 9}, None, "6 cases for 9 splits or folds"),
        ({"folds": 2}, "city", "case 'c000' has no group 'city'; expected one of patient"),
    ],
)
def test_a_rule_that_cannot_be_met_is_refused(rule, group_by, expected):
    with pytest.raises(SpecError, match=expected):
        ruled_splits(SplitRule.model_validate(rule), cases(6, patients=3), group_by, None)


@pytest.mark.parametrize(("shape", "size"), [((100, 130), 32), ((7, 500), 50), ((10, 10), 64)])
def test_blocks_partition_a_scene_and_none_is_a_sliver(shape, size):
    hits = np.zeros(shape, int)
    grid = block_grid(shape, size)
    for window in itertools.product(*grid):
        hits[window] += 1
    assert (hits == 1).all()
    for spans, length in zip(grid, shape, strict=True):
        sides = [span.stop - span.start for span in spans]
        assert max(sides) - min(sides) <= 1
        assert min(sides) >= min(length, size / 2)


@pytest.mark.parametrize("buffer", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("seed", range(4))
def test_pixels_of_two_splits_are_a_buffer_apart_corners_included(buffer, seed):
    grid = block_grid((60, 75), 15)
    rng = np.random.default_rng(seed)
    owner = rng.choice(np.array(["train", "val", "test"], object), (4, 5))
    windows = buffered(grid, owner, buffer)
    maps = {}
    for split, own in windows.items():
        maps[split] = np.zeros((60, 75), bool)
        for window in own:
            assert not maps[split][window].any()
            maps[split][window] = True
    nearest = np.inf
    for one, other in itertools.combinations(maps.values(), 2):
        for row, col in np.argwhere(one):
            reach = (
                slice(max(0, row - buffer), row + buffer + 1),
                slice(max(0, col - buffer), col + buffer + 1),
            )
            assert not other[reach].any(), "pixels between them: fewer than the buffer"
        apart = np.abs(np.argwhere(one)[:, None] - np.argwhere(other)[None]).max(-1)
        nearest = min(nearest, apart.min())
    assert nearest == buffer + 1, "and no more than needed is given up"


def test_blocks_of_a_spec_are_regions_in_their_shares():
    rule = SplitRule(ratio={"train": 3, "test": 1}, blocks={"size": 20, "buffer": 0})
    found = ruled_splits(rule, cases(2), None, lambda case: (100, 200))
    pixels = {
        split: sum((r.rows[1] - r.rows[0]) * (r.cols[1] - r.cols[0]) for r in regions)
        for split, regions in found.items()
    }
    assert sum(pixels.values()) == 2 * 100 * 200
    assert pixels["test"] == pytest.approx(0.25 * 2 * 100 * 200, rel=0.05)


def test_no_split_stays_empty_however_small_its_share():
    shares = {"train": 1.0, "val": 1e-6, "test": 1e-6}
    for count in (3, 4, 50):
        assert set(apportioned([5] * count, shares, np.random.default_rng(0))) == set(shares)


def test_splits_are_named_by_case_group_and_list(tmp_path):
    all_cases = cases(6, patients=3)
    (tmp_path / "test.txt").write_text("Ghana_c004_S1.tif,Ghana_c004_L.tif\nGhana_c9_S1.tif,x\n")
    listed = [
        case.model_copy(update={"groups": {**case.groups, "n": case.id}}) for case in all_cases
    ]
    splits = {
        "train": (SplitEntry(where={"patient": ("p0",)}), SplitEntry(case="c001")),
        "test": (SplitEntry(list="test.txt", match="Ghana_{n}_S1.tif"),),
    }
    found = listed_splits(splits, listed, tmp_path)
    assert ids(found["train"]) == ["c000", "c003", "c001"]
    assert ids(found["test"]) == ["c004"]
    (tmp_path / "test.txt").write_text("c002\n\nc005\n")
    plain = listed_splits({"test": (SplitEntry(list="test.txt"),)}, listed, tmp_path)
    assert ids(plain["test"]) == ["c002", "c005"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"case": "c7"}, "split 'test' names case 'c7'; known cases are c000, c001"),
        (
            {"where": {"patient": ("p9",)}},
            "'p9', which no case has; expected one of p0, p1",
        ),
        ({"where": {"city": ("x",)}}, "expected a group that cases have"),
        ({"list": "gone.txt"}, "cannot be read"),
        ({"list": "other.txt"}, "none of the 1 lines"),
    ],
)
def test_an_entry_that_finds_nothing_is_refused(tmp_path, entry, expected):
    (tmp_path / "other.txt").write_text("nobody\n")
    with pytest.raises(SpecError, match=expected):
        listed_splits({"test": (SplitEntry(**entry),)}, cases(3, patients=2), tmp_path)


@pytest.mark.parametrize(
    ("text", "match", "expected"),
    [
        ("c000\nim_2.tif\nc001\n", None, r"1 of 3 lines of .*test\.txt names no case: im_2\.tif;"),
        ("c000\nC001\nc2\n", None, r"2 of 3 lines of .*test\.txt name no case: C001, c2;"),
        ("id\np0.tif\np7.tif\np1.png\n", "{patient}.tif", r"2 of 4 lines .*: p7\.tif, p1\.png;"),
    ],
)
def test_a_line_that_names_no_case_is_refused_where_a_rule_divides_the_rest(
    tmp_path, text, match, expected
):
    (tmp_path / "test.txt").write_text(text)
    document = {
        "name": "made", "ndim": 2, "channels": ["x"],
        "classes": [{"value": 0, "name": "a"}, {"value": 1, "name": "b"}],
        "cases": [case.model_dump(exclude_none=True) for case in cases(6, patients=2)],
        "splits": {"test": [{"list": "test.txt", **({"match": match} if match else {})}]},
        "split_by": {"ratio": {"train": 1, "val": 1}},
    }  # fmt: skip
    spec = DatasetSpec.model_validate(document)
    with pytest.raises(SpecError, match=expected):
        spec.located(tmp_path)
    # Without a rule no case changes its split: lists may be those of a larger dataset.
    whole = DatasetSpec.model_validate({k: v for k, v in document.items() if k != "split_by"})
    assert "c000" in ids(whole.located(tmp_path).regions("test"))


def test_a_header_and_empty_lines_of_a_list_are_no_cases(tmp_path):
    (tmp_path / "test.txt").write_text("scan,label\np0.tif,x\n\n")
    entry = SplitEntry(list="test.txt", match="{patient}.tif")
    found = listed_splits({"test": (entry,)}, cases(6, patients=2), tmp_path, complete=True)
    assert ids(found["test"]) == ["c000", "c002", "c004"]
