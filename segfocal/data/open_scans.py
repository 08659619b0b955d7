"""A bounded number of open files for datasets of any number of scans.

What is opened is a case's scan or its labels *as the spec describes them*: files stacked,
channels named, values scaled; labels on the scan's grid, as codes of the class table.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from segfocal.data.classes import vector_values
from segfocal.errors import ChannelError, ScanNotFoundError
from segfocal.io import Scan, StackedScan, open_scan
from segfocal.io.described import DescribedScan
from segfocal.io.label_views import AreaLabels, BandLabels, ColorLabels, InstanceLabels, MaskLabels
from segfocal.io.nearest import labels_on_grid
from segfocal.io.vectors import VECTOR_SUFFIXES, VectorScan

if TYPE_CHECKING:
    from segfocal.data.cases import Case
    from segfocal.data.spec import DatasetSpec

__all__ = ["OpenScans", "open_image", "open_labels"]

LIMIT = 64


class OpenScans:
    """Opens scans when they are asked for and closes those that were not used for longest.

    Args:
        spec: The dataset.
    """

    def __init__(self, spec: DatasetSpec) -> None:
        self._spec = spec
        self._open: OrderedDict[tuple[str, str], Scan] = OrderedDict()
        self._closed = False

    def image(self, case: Case) -> Scan:
        """Return the open scan of a case.

        Raises:
            ValueError: Everything was closed already.
            ScanError, ChannelError: It cannot be opened.
        """
        return self._get("image", case, lambda: open_image(self._spec, case))

    def labels(self, case: Case) -> Scan:
        """Return the open labels of a case, on the grid of its scan.

        Raises:
            ValueError: Everything was closed already.
            ScanError: They cannot be opened or lie elsewhere.
        """
        return self._get("labels", case, lambda: open_labels(self._spec, case, self.image(case)))

    def _get(self, what: str, case: Case, opened: Callable[[], Scan]) -> Scan:
        if self._closed:
            raise ValueError(f"case {case.id!r}: read after the dataset was closed")
        key = (what, case.id)
        if key not in self._open:
            self._open[key] = opened()
            if len(self._open) > LIMIT:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(key)
        return self._open[key]

    def close(self) -> None:
        """Close all files for good."""
        self._closed = True
        while self._open:
            self._open.popitem()[1].close()


def open_image(spec: DatasetSpec, case: Case, *, orientation: str | None = None) -> Scan:
    """Open a case's scan as the spec describes it.

    Args:
        spec: The dataset.
        case: The case.
        orientation: Axis codes of a volume in place of the spec's.

    Raises:
        ScanError: A file cannot be opened, or the files do not go together.
        ChannelError: ``bands`` names more or fewer channels than there are.
    """
    paths = spec.image_files(case)
    orientation = orientation or spec.orientation or "RAS"
    with ExitStack() as stack:
        names = _channel_names(spec, case, paths, orientation)
        # One file by itself keeps a name of its own for messages and outputs.
        scan = open_scan(paths[0] if len(paths) == 1 else list(paths), orientation=orientation)
        stack.callback(scan.close)
        if names is not None:
            if len(names) != len(scan.channels):
                raise ChannelError(
                    f"{scan.name}: has {len(scan.channels)} channels; bands of spec "
                    f"{spec.name!r} names {len(names)}: {', '.join(names)}"
                    + (f"; {scan.channel_note}" if scan.channel_note else "")
                )
            scan = StackedScan([scan], names)
        if spec.scale or spec.offset or spec.nodata:
            if not scan.channels_are_named and len(scan.channels) == len(spec.channels):
                scan = StackedScan([scan], spec.channels)  # matched by position
            scan = DescribedScan(scan, scale=spec.scale, offset=spec.offset, nodata=spec.nodata)
        stack.pop_all()
    return scan


def _channel_names(
    spec: DatasetSpec, case: Case, paths: Sequence[str], orientation: str
) -> list[str] | None:
    """Return names for a case's channels, or None: those that the files give."""
    keys = list(case.files)
    if not spec.bands and case.image is not None:
        return None
    names: list[str] = []
    for key, path in zip(keys, paths, strict=True):
        bands = spec.bands.get(key, spec.bands.get("*"))
        if bands is None:
            with open_scan(path, orientation=orientation) as scan:
                single = len(scan.channels) == 1
                if not single and not scan.channels_are_named:
                    if len(keys) == 1:
                        return None
                    raise ChannelError(
                        f"{path}: its {len(scan.channels)} channels have no names; expected them "
                        f"under bands in spec {spec.name!r}, for the file {key!r}"
                    )
                bands = (key,) if single and key != "*" else scan.channels
        names += bands
    return names


def open_labels(spec: DatasetSpec, case: Case, image: Scan) -> Scan:
    """Open a case's labels on the grid of its scan, as codes of the spec's class table.

    Args:
        spec: The dataset.
        case: The case.
        image: The case's open scan; it stays open.

    Raises:
        ScanError: The file cannot be opened, is not of the kind that the spec says, or lies
            elsewhere.
    """
    rule = spec.labels
    path = spec.path(case.labels)
    orientation = spec.orientation or "RAS"
    if rule.kind == "vector":
        labels = _open_vector(spec, path, image)
    elif rule.kind == "masks":
        labels = labels_on_grid(image, _open_masks(spec, case, orientation))
    else:
        table = spec.class_table
        file = open_scan(path, orientation=orientation)
        with ExitStack() as stack:
            stack.callback(file.close)
            labels = file
            if rule.kind == "colors":
                known = [code for group in table.label_codes for code in group]
                known += table.ignored
                labels = ColorLabels(file, known, rule.tolerance)
            elif rule.band > 1 or rule.nodata is not None or not rule.honour_nodata:
                labels = BandLabels(
                    file, band=rule.band, nodata=rule.nodata, honour_nodata=rule.honour_nodata
                )
            if rule.kind == "instances":
                value = next(entry.value for entry in spec.class_entries if entry.value != 0)
                labels = InstanceLabels(labels, value)
            labels = labels_on_grid(image, labels)
            stack.pop_all()
    if case.area is None:
        return labels
    return AreaLabels(labels, _open_area(spec.path(case.area), image, orientation))


def _open_masks(spec: DatasetSpec, case: Case, orientation: str) -> Scan:
    """Open the masks of a case; a class without a file does not occur."""
    values = {entry.name: entry.value for entry in spec.class_entries}
    with ExitStack() as stack:
        masks = []
        for name, entry in spec.label_files(case).items():
            path = spec.path(entry)
            if path.is_file():
                scan = stack.enter_context(open_scan(path, orientation=orientation))
                masks.append((values[name], scan))
        if not masks:
            raise ScanNotFoundError(
                f"{spec.path(case.labels)}: no mask of any class; expected a file for one at least"
            )
        view = MaskLabels(masks)
        stack.pop_all()
    return view


def _open_vector(spec: DatasetSpec, path: Path, image: Scan) -> Scan:
    rule = spec.labels
    drawn = spec.drawn_classes
    zero = next((entry.value for entry in spec.class_entries if entry.value == 0), None)
    named = {entry.name: entry.value for entry in spec.class_entries}
    if rule.outside is None:
        outside = zero
    else:
        outside = None if rule.outside == "ignore" else named[rule.outside]
    values = {"": drawn[0].value} if rule.class_field is None else vector_values(drawn)
    return VectorScan(
        path,
        image,
        values,
        field=rule.class_field,
        layer=rule.layer,
        order=rule.draw_order,
        all_touched=rule.all_touched,
        outside=outside,
    )


def _open_area(path: Path, image: Scan, orientation: str) -> Scan:
    if path.name.lower().endswith(VECTOR_SUFFIXES):
        return VectorScan(path, image, {"": 1})
    return labels_on_grid(image, open_scan(path, orientation=orientation))
