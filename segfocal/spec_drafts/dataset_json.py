"""``dataset.json`` of nnU-Net v2 and of the Medical Segmentation Decathlon."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segfocal.data.patterns import find_files
from segfocal.errors import SpecError
from segfocal.spec_drafts.draft import Draft, checked_name, class_rows

__all__ = ["from_decathlon", "from_nnunet", "read_json"]

VOLUMES = (".nii.gz", ".nii", ".mgz", ".mgh")
RASTERS = (".png", ".tif", ".tiff", ".jpg", ".bmp")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        SpecError: The file is missing or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise SpecError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise SpecError(f"{path}: holds {type(value).__name__}; expected an object")
    return value


def from_nnunet(path: Path) -> Draft:
    """Return the draft of an nnU-Net v2 dataset.

    Channels are files ``CASE_0000``, ``CASE_0001``, ..., or one file with several channels.
    Labels that are lists are regions, in the order of ``regions_class_order``; the label
    ``ignore`` is ignored.

    Raises:
        SpecError: The file lacks something, or holds what nnU-Net does not know.
    """
    value = read_json(path)
    folder = path.parent
    channels = _channels(path, value.get("channel_names", value.get("modality")))
    ending = value.get("file_ending")
    if not isinstance(ending, str) or not ending.endswith((*VOLUMES, *RASTERS)):
        raise SpecError(
            f"{path}: file_ending: found {ending!r}; expected one of "
            f"{', '.join((*VOLUMES, *RASTERS))}: convert other files first"
        )
    held_out = (folder / "labelsTs").is_dir()
    part = "{part:T[rs]}" if held_out else "Tr"
    several = len(find_files(f"imagesTr/{{id}}_0001{ending}", folder)) > 0
    pairing: dict[str, Any] = {}
    document = _head(path, value, 3 if ending in VOLUMES else 2, channels)
    if several:
        pairing["images"] = {
            name: f"images{part}/{{id}}_{number:04}{ending}" for number, name in enumerate(channels)
        }
    else:
        pairing["image"] = f"images{part}/{{id}}_0000{ending}"
        if len(channels) > 1:
            document["bands"] = channels
    pairing["labels"] = f"labels{part}/{{id}}{ending}"
    if held_out:
        pattern = str(pairing.get("image") or next(iter(pairing["images"].values())))
        ids = [groups["id"] for _, groups in find_files(pattern, folder)]
        # Numbers may start anew in the other folder.
        pairing["id"] = "{id}" if len(set(ids)) == len(ids) else "{part}_{id}"
        document["splits"] = {"test": [{"where": {"part": "Ts"}}]}
    listed = value.get("dataset")
    if isinstance(listed, dict):
        document["cases"] = [
            _listed_case(path, name, entry, channels) for name, entry in listed.items()
        ]
    else:
        document["pairing"] = pairing
    document["split_by"] = {"folds": 5, "fold": 0, "seed": 12345}
    _nnunet_labels(path, value, document)
    return Draft(folder, document, _comments(document))


def _nnunet_labels(path: Path, value: dict[str, Any], document: dict[str, Any]) -> None:
    labels = value.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise SpecError(f"{path}: labels: found {labels!r}; expected names and values")
    if all(str(key).isdigit() and isinstance(name, str) for key, name in labels.items()):
        labels = {name: int(key) for key, name in labels.items()}  # as nnU-Net v1 wrote them
    if not any(isinstance(number, list) for number in labels.values()):
        ranked = sorted((_number(path, v), str(name)) for name, v in labels.items())
        document["classes"] = _rows(ranked)
        return
    order = value.get("regions_class_order")
    regions = {
        str(name): sorted(_number(path, v) for v in (n if isinstance(n, list) else [n]))
        for name, n in labels.items()
    }
    ignored = regions.pop("ignore", None)
    regions = {name: codes for name, codes in regions.items() if codes != [0]}
    if not isinstance(order, list) or len(order) != len(regions):
        raise SpecError(
            f"{path}: regions_class_order: found {order!r}; expected {len(regions)} values, one "
            "for each region"
        )
    document["task"] = "regions"
    rows = class_rows([(_number(path, v), name) for v, name in zip(order, regions, strict=True)])
    document["classes"] = [
        {**row, "from": codes} for row, codes in zip(rows, regions.values(), strict=True)
    ]
    if ignored is not None:
        document["ignore_values"] = ignored


def from_decathlon(path: Path) -> Draft:
    """Return the draft of a Medical Segmentation Decathlon task.

    Several modalities are channels of one 4-D volume.

    Raises:
        SpecError: The file lacks something.
    """
    value = read_json(path)
    folder = path.parent
    channels = _channels(path, value.get("modality"))
    training = value.get("training")
    if not isinstance(training, list) or not training:
        raise SpecError(f"{path}: training: expected a list of images and labels")
    document = _head(path, value, 3, channels)
    if len(channels) > 1:
        document["bands"] = channels
    cases = []
    for number, entry in enumerate(training):
        try:
            image, labels = (entry[key].removeprefix("./") for key in ("image", "label"))
        except (TypeError, KeyError, AttributeError):
            raise SpecError(
                f"{path}: training.{number}: found {entry!r}; expected image and label"
            ) from None
        name = Path(image).name.split(".")[0]
        cases.append({"id": name, "image": image, "labels": labels})
    rule = {"image": "imagesTr/{id}.nii.gz", "labels": "labelsTr/{id}.nii.gz"}
    there = {groups["id"] for _, groups in find_files(rule["image"], folder)}
    if {case["image"] for case in cases} == {f"imagesTr/{name}.nii.gz" for name in there}:
        document["pairing"] = rule
    else:
        document["cases"] = cases
    labels = value.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise SpecError(f"{path}: labels: found {labels!r}; expected values and names")
    if all(isinstance(number, int) for number in labels.values()):  # nnU-Net's direction
        labels = {number: name for name, number in labels.items()}
    document["classes"] = _rows(sorted((_number(path, k), str(v)) for k, v in labels.items()))
    document["split_by"] = {"folds": 5, "fold": 0, "seed": 0}
    return Draft(folder, document, _comments(document))


def _head(path: Path, value: dict[str, Any], ndim: int, channels: list[str]) -> dict[str, Any]:
    def text(*keys: str) -> str:
        return next((str(value[key]).strip() for key in keys if value.get(key)), "")

    document: dict[str, Any] = {
        "name": checked_name(text("name") or path.resolve().parent.name),
        "description": text("description"),
        "licence": text("licence", "license"),
        "citation": text("reference"),
        "ndim": ndim,
        "channels": channels,
    }
    kinds = {name: _normalization(name) for name in channels}
    if ndim == 3:
        document["orientation"] = "RAS"
    else:  # the plan decides, except where there is to be none
        kinds = {name: kind for name, kind in kinds.items() if kind == "none"}
    if kinds:
        same = len(kinds) == len(channels) and len(set(kinds.values())) == 1
        document["normalization"] = next(iter(kinds.values())) if same else kinds
    return {key: entry for key, entry in document.items() if entry != ""}


def _normalization(channel: str) -> str:
    """Return how nnU-Net normalizes a channel of this name."""
    if channel.lower().startswith("nonorm"):
        return "none"
    return "ct" if channel.upper().startswith("CT") else "scan"


def _channels(path: Path, names: object) -> list[str]:
    if not isinstance(names, Mapping) or not names:
        raise SpecError(
            f"{path}: channel_names (or modality): found {names!r}; expected numbers and names"
        )
    try:
        ranked = [str(names[key]) for key in sorted(names, key=int)]
    except (TypeError, ValueError):
        raise SpecError(
            f"{path}: channel_names: found {list(names)!r}; expected 0, 1, 2, ..."
        ) from None
    found: list[str] = []
    for name in ranked:
        same = found.count(name) + sum(other.startswith(f"{name}_") for other in found)
        found.append(f"{name}_{same + 1}" if same else name or f"channel_{len(found) + 1}")
    return found


def _number(path: Path, value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise SpecError(f"{path}: labels: found {value!r}; expected a whole number") from None


def _rows(ranked: list[tuple[int, str]]) -> list[dict[str, Any]]:
    rows = class_rows(ranked)
    return [{**row, "ignore": True} if row["name"] == "ignore" else row for row in rows]


def _listed_case(path: Path, name: str, entry: Any, channels: list[str]) -> dict[str, Any]:
    try:
        images, labels = list(entry["images"]), str(entry["label"])
    except (TypeError, KeyError):
        raise SpecError(
            f"{path}: dataset.{name}: found {entry!r}; expected images and label"
        ) from None
    if len(images) == 1:
        return {"id": name, "image": images[0], "labels": labels}
    if len(images) != len(channels):
        raise SpecError(
            f"{path}: dataset.{name}: {len(images)} images; expected {len(channels)}, one for "
            "each channel"
        )
    return {"id": name, "images": dict(zip(channels, images, strict=True)), "labels": labels}


def _comments(document: dict[str, Any]) -> dict[str, str]:
    comments = {
        "split_by": "Cross-validation; cases of one patient belong together: name the patient as a "
        "group in the\npattern and set group_by when a patient has several cases.",
    }
    if "licence" not in document:
        comments["ndim"] = "Fill in above: licence, citation."
    return comments
