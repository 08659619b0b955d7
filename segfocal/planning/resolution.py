"""The resolution that patches are of: nnU-Net's rule for the spacing of volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from segfocal.data.reading import SAME_SPACING, RegionReader
from segfocal.data.spec import DatasetSpec
from segfocal.errors import SpecError
from segfocal.io.ground import unit_of_pixels
from segfocal.planning.scale import resolution_fault

__all__ = ["check_units", "plan_resolution"]

ANISOTROPIC = 3
"""Ratio of spacings, and of numbers of voxels, beyond which an axis is coarse."""

COARSE_PERCENTILE = 10


def plan_resolution(
    spec: DatasetSpec, readers: Sequence[RegionReader]
) -> tuple[tuple[float, ...] | None, bool, dict[str, str]]:
    """Return the resolution of patches, whether scans are resampled to it, and why each.

    Volumes: the median of the spacings along each axis; along a coarse axis (more than three
    times the others in spacing, less than a third in voxels) the 10th percentile, but no
    finer than the others. Scenes are taken as they are.

    Raises:
        SpecError: The spec asks for a resolution, and a scan has none, or a region no pixel of
            it; or resolutions are in different units.
    """
    by_case = {reader.case.id: reader for reader in readers}
    units = {name: unit_of_pixels(r.scans.image(r.case)) for name, r in by_case.items()}
    try:
        check_units(units)
    except SpecError as error:
        raise SpecError(f"spec {spec.name!r}: {error}") from error
    unit = next((f", in {unit}" for unit in units.values() if unit is not None), "")
    known = [reader.resolution for reader in by_case.values()]
    if spec.resolution is not None:
        _check_regions(spec, spec.resolution, readers, units)
        return (
            spec.resolution,
            True,
            _why(
                f"the spec says so{unit}", "scans of another resolution are brought to the spec's"
            ),
        )
    if any(sides is None for sides in known):
        return (
            None,
            False,
            _why("not known of all scans", "there is no resolution to bring them to"),
        )
    sides = np.array(known, np.float64)
    median = np.median(sides, axis=0)
    same = bool((np.maximum(sides, median) <= SAME_SPACING * np.minimum(sides, median)).all())
    if same:
        first = tuple(float(side) for side in known[0] or ())
        origin = "that of all scans" if len(known) > 1 else "that of the scan"
        return first, False, _why(f"{origin}{unit}", "nothing has another resolution")
    why = (
        f"the median of {_text(sides.min(0))} to {_text(sides.max(0))} in {len(sides)} scans{unit}"
    )
    if spec.ndim == 2:
        return (
            tuple(median.tolist()),
            False,
            _why(why, "scenes are not, unless the spec has a resolution"),
        )
    target, coarse = _target(sides, np.median([r.shape for r in by_case.values()], axis=0))
    if coarse is not None:
        why += f"; axis {coarse} is coarse: its {COARSE_PERCENTILE}th percentile, as in nnU-Net"
    return (
        tuple(target.tolist()),
        True,
        _why(why, "volumes of another resolution are brought to it, as in nnU-Net"),
    )


def _why(resolution: str, resample: str) -> dict[str, str]:
    return {"card.resolution": resolution, "resample": resample}


def _check_regions(
    spec: DatasetSpec,
    wanted: tuple[float, ...],
    readers: Sequence[RegionReader],
    units: Mapping[str, str | None],
) -> None:
    for reader in readers:
        name, sides = reader.case.id, reader.resolution
        if sides is None:
            raise SpecError(
                f"spec {spec.name!r}: resolution {list(wanted)}, and case {name!r} has none: "
                "leave the resolution out, or give the file one"
            )
        fault = resolution_fault(reader.window, reader.shape, sides, wanted, units[name])
        if fault is not None:
            raise SpecError(f"spec {spec.name!r}: case {name!r}: {fault}")


def check_units(units: Mapping[str, str | None]) -> None:
    """Raise unless all resolutions that are known are in one unit.

    Args:
        units: Unit by case; see :func:`~segfocal.io.ground.unit_of_pixels`.

    Raises:
        SpecError: They are in several.
    """
    cases: dict[str, list[str]] = {}
    for name, unit in units.items():
        if unit is not None:
            cases.setdefault(unit, []).append(name)
    if len(cases) > 1:
        found = ", ".join(
            f"{unit} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for unit, names in cases.items()
        )
        raise SpecError(
            f"pixel sizes are in {found}; expected one unit: reproject the scenes to one kind of "
            "CRS, or make separate specs"
        )


def _target(sides: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, int | None]:
    target = np.median(sides, axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(len(target)) if axis != worst]
    coarse = (
        target[worst] > ANISOTROPIC * target[others].max()
        and ANISOTROPIC * shape[worst] < shape[others].min()
    )
    if not coarse:
        return target, None
    finer = np.percentile(sides[:, worst], COARSE_PERCENTILE)
    target[worst] = max(finer, target[others].max() + 1e-5)
    return target, worst


def _text(sides: np.ndarray) -> str:
    return " x ".join(f"{side:.4g}" for side in sides)
