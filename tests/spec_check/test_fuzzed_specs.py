"""Damaged specs of files that are there: checked and planned, or refused in one line."""

from __future__ import annotations

import json
import random
import warnings

import nibabel as nib
import numpy as np
import pytest
import rasterio
import yaml
from rasterio.transform import Affine

import segfocal as sf
from segfocal.data.spec import DatasetSpec
from segfocal.errors import SegfocalError

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

VALUES = [
    None, True, False, 0, 1, -1, 3, 1e-4, 1e400, float("nan"), 2**63, -(2**70), "", "x", "none",
    "{", "{a}", "{a:(}", "**", "../..", "/", "\0", "sample:x", [], [[]], {}, {"*": 1}, {"a": {}},
    [1, 2], ["red"], {"train": 1}, {"train": ["a"]}, [{"case": "a"}], "colors", "vector",
    {"kind": "vector"}, {"kind": "instances"}, {"image": "{a}", "labels": "{a}"}, "#zzzzzz",
    {"blocks": {"size": 4}, "ratio": {"train": 1}}, {"folds": 2}, [0, 5], "a\nb", "é" * 300,
]  # fmt: skip
KEYS = sorted(
    {
        *DatasetSpec.model_fields, "classes", "from", "image", "images", "labels", "id", "csv",
        "where", "list", "match", "kind", "color", "value", "ratio", "folds", "blocks", "size",
        "annotated", "columns", "delimiter", "exclude", "area", "groups", "zzz", "1",
    }
)  # fmt: skip


def mutated(value, rng: random.Random, force: float):
    """A document with a few places changed, added or removed."""
    if isinstance(value, dict):
        changed = {}
        for key, entry in value.items():
            draw = rng.random()
            if draw < 0.04 * force:
                continue
            if draw < 0.07 * force:
                key = rng.choice(KEYS)
            changed[key] = mutated(entry, rng, force)
        if rng.random() < 0.15 * force:
            changed[rng.choice(KEYS)] = rng.choice(VALUES)
        return changed
    if isinstance(value, list):
        changed = [mutated(item, rng, force) for item in value]
        if rng.random() < 0.08 * force:
            changed.append(rng.choice(VALUES))
        if changed and rng.random() < 0.05 * force:
            changed.append(changed[0])
        return changed
    return rng.choice(VALUES) if rng.random() < 0.08 * force else value


CLASSES = [
    {"value": 0, "name": "other", "color": "#000000"},
    {"value": 1, "name": "house", "color": "#ff8000"},
]
HEAD = {"name": "city", "ndim": 2, "channels": ["red", "green", "blue"], "classes": CLASSES}
IMAGES = {"image": "{city}/img/{tile}.tif", "labels": "{city}/gt/{tile}.tif"}
BASES = {
    "rule": {
        **HEAD, "pairing": IMAGES, "splits": {"test": [{"where": {"city": "oslo"}}]},
        "split_by": {"ratio": {"train": 2, "val": 1}}, "ignore_values": [9], "nodata": 0,
        "normalization": {"red": "scan"},
    },
    "table": {
        **HEAD, "splits": {"train": [{"list": "l.txt", "match": "{n}.tif"}]},
        "split_by": {"ratio": {"test": 1}}, "group_by": "site", "scale": {"red": 2.0},
        "pairing": {"csv": "t.csv", "image": "{image}", "labels": "{mask}", "id": "{n}",
                    "annotated": {"group": "site", "classes": {"a": ["house"]}}},
    },
    "volumes": {
        "name": "body", "ndim": 3, "orientation": "RAS", "channels": ["ct", "pet"],
        "classes": CLASSES, "group_by": "patient",
        "bands": {"ct": ["ct"], "pet": ["pet"]}, "resolution": [1.0, 1.0, 1.0],
        "cases": [
            {"id": name, "images": {"ct": f"{name}ct.nii", "pet": f"{name}pet.nii"},
             "labels": f"{name}l.nii", "area": f"{name}l.nii", "groups": {"patient": name}}
            for name in "ab"
        ],
        "splits": {"train": [{"case": "a", "rows": [0, 5]}], "test": [{"case": "b"}]},
    },
    "polygons": {
        **HEAD, "labels": {"kind": "vector", "class_field": "use", "draw_order": "area"},
        "split_by": {"ratio": {"train": 0.7, "test": 0.3}, "blocks": {"size": 8, "buffer": 1}},
        "pairing": {**IMAGES, "labels": "{city}/{tile}.geojson"},
        "checksums": {"l.txt": "md5:" + "0" * 32},
    },
    "regions": {
        **HEAD, "task": "regions", "valid_when": "any",
        "classes": [
            {"value": 1, "name": "all", "from": [0, 1]}, {"value": 2, "name": "house", "from": [1]}
        ],
        "labels": {"nodata": 9, "honour_nodata": True, "band": 1}, "pairing": IMAGES,
        "split_by": {"folds": 2},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzzed")
    rng = np.random.default_rng(0)
    for number, (city, tile) in enumerate((c, t) for c in ("rome", "oslo") for t in "12"):
        transform = Affine(1, 0, 5e5 + 100 * number, 0, -1, 4e6)
        for part, bands, high in (("img", 3, 250), ("gt", 1, 2)):
            path = root / city / part / f"{tile}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            with rasterio.open(
                path, "w", driver="GTiff", count=bands, height=16, width=16, dtype="uint8",
                crs="EPSG:32633", transform=transform,
            ) as out:  # fmt: skip
                out.write(rng.integers(0, high, (bands, 16, 16)).astype("uint8"))
        x, y = transform.c, transform.f
        ring = [[x + 2, y - 2], [x + 9, y - 2], [x + 9, y - 9], [x + 2, y - 2]]
        feature = {
            "type": "Feature", "properties": {"use": "house"},
            "geometry": {"type": "Polygon", "coordinates": [ring]},
        }  # fmt: skip
        crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
        text = json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]})
        (root / city / f"{tile}.geojson").write_text(text)
    for case in "ab":
        for part, high in (("ct", 500), ("pet", 500), ("l", 2)):
            values = rng.integers(0, high, (8, 9, 10)).astype("int16")
            nib.save(nib.Nifti1Image(values, np.eye(4)), root / f"{case}{part}.nii")
    table = "".join(f"{c}/img/1.tif,{c}/gt/1.tif,{c[0]},{c}\n" for c in ("rome", "oslo"))
    (root / "t.csv").write_text(f"image,mask,site,n\n{table}")
    (root / "l.txt").write_text("rome.tif\n")
    return root


def outcomes(place, base: str, count: int, seed: int) -> tuple[list[str], int]:
    """Return refusals, and how many specs got as far as a check."""
    rng = random.Random(seed)
    path = place / f"{base}.yaml"
    refusals, checked = [], 0
    for _ in range(count):
        text = yaml.dump(
            mutated(BASES[base], rng, rng.choice([0.1, 0.3, 1.0])),
            Dumper=DUMPER,
            allow_unicode=True,
        )
        if rng.random() < 0.1:  # damage the text itself
            at = rng.randrange(len(text))
            damage = rng.choice(["{", "[", ":", "\t", "- ", "&a ", "*a", "!!x "])
            text = text[:at] + damage + text[at:]
        path.write_text(text, encoding="utf-8")
        try:
            found = sf.check_spec(path)
            checked += 1
            assert all(f.text and "\n" not in f.text for f in found.findings), text
            if rng.random() < 0.5:
                sf.make_plan(sf.load_spec(path))
        except SegfocalError as error:
            refusals.append(str(error))
        except Exception as error:
            raise AssertionError(f"{error!r} for\n{text}") from error
    return refusals, checked


@pytest.mark.parametrize("base", BASES)
def test_a_spec_to_be_damaged_is_sound(base, place):
    if base == "polygons":
        pytest.importorskip("pyogrio")
    path = place / f"{base}_sound.yaml"
    path.write_text(yaml.dump(BASES[base], Dumper=DUMPER))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sf.check_spec(path)
        assert sf.make_plan(sf.load_spec(path)).patch


@pytest.mark.parametrize(
    "count", [100, pytest.param(1000, marks=pytest.mark.slow)], ids=["few", "many"]
)
@pytest.mark.parametrize("base", BASES)
def test_a_damaged_spec_is_checked_or_refused_in_one_line(base, count, place):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refusals, checked = outcomes(place, base, count, seed=count)
    assert len(refusals) > count // 3
    assert checked > count // 10
    assert all(message and "\n" not in message for message in refusals)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"ignore_values": [2**63]}, "ignore_values.0: Input should be less than 9223372036854775"),
        ({"ignore_values": [-(2**63) - 1]}, "ignore_values.0: Input should be greater than"),
        ({"root": "a\0"}, r"root: expected text without line breaks.*found 'a\\x00'"),
        ({"pairing": {**IMAGES, "area": "\0"}}, r"pairing.area: expected text.*found '\\x00'"),
        ({"pairing": {**IMAGES, "labels": "a\n{tile}"}}, r"pairing.labels: .*found 'a\\n\{tile\}'"),
        ({"pairing": {"csv": "nul.csv", **IMAGES}}, r"nul.csv: image of a case: .*'a\\x00/img/1"),
        ({"pairing": {**IMAGES, "area": "/"}}, "pairing.area: pattern '/' names no file; expected"),
        ({"splits": {"test": [{"list": "\0"}]}}, r"splits.test.0.list: .*found '\\x00'"),
        ({"name": "?" * 5000}, r"name: .*; found '\?{199}\.\.\.$"),
    ],
)  # fmt: skip
def test_what_no_file_or_label_can_be_called_is_refused_by_key(change, expected, place):
    (place / "nul.csv").write_text("city,tile\na\0,1\n")
    path = place / "one.yaml"
    path.write_text(yaml.dump({**BASES["rule"], **change}, Dumper=DUMPER))
    with pytest.raises(SegfocalError, match=expected) as caught:
        sf.check_spec(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
