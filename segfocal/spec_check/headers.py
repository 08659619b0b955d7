"""What follows from the headers of the scans: pixel sizes, types, orientations, scales."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from segfocal.data.spec import DatasetSpec
from segfocal.errors import SpecError
from segfocal.planning.resolution import check_units
from segfocal.planning.scale import resolution_doubts, resolution_fault
from segfocal.spec_check.finding import Finding
from segfocal.spec_check.survey import CaseSurvey

__all__ = ["of_headers"]


def of_headers(spec: DatasetSpec, read: Sequence[CaseSurvey]) -> Iterator[Finding]:
    """Yield findings about the headers of the scans that could be read."""
    sizes = [survey.resolution for survey in read if survey.resolution is not None]
    try:
        check_units({survey.case.id: survey.unit for survey in read})
    except SpecError as error:
        yield Finding("fault", str(error))
    else:  # of one unit, they can be compared
        faults = [] if spec.resolution is None else list(_regions(spec.resolution, read))
        yield from faults
        if not faults:
            for text in resolution_doubts(sizes, spec.resolution, spec.ndim):
                yield Finding("warning", text)
    types = sorted({survey.dtype for survey in read})
    if len(types) > 1:
        yield Finding("notice", f"scans are of types {', '.join(types)}")
    turned = {str(s.georeference.get("file_orientation", "")) for s in read} - {""}
    if turned and turned != {spec.orientation or "RAS"}:
        yield Finding(
            "notice",
            f"files are stored as {', '.join(sorted(turned))} and read as "
            f"{spec.orientation or 'RAS'}",
        )
    for name in spec.channels:
        twice = tuple(survey.case.id for survey in read if name in survey.twice_scaled)
        if twice:
            yield Finding(
                "warning",
                f"channel {name!r} has a scale or offset in the header, and the spec's is applied "
                "after it; take it out of the spec unless it is meant to change the unit",
                twice,
            )
    if spec.scale or spec.offset or spec.nodata:
        keys = [key for key in ("scale", "offset", "nodata") if getattr(spec, key)]
        yield Finding(
            "notice",
            f"{', '.join(keys)} stand in the spec: a scan to predict needs them in its own header",
        )


def _regions(wanted: Sequence[float], read: Sequence[CaseSurvey]) -> Iterator[Finding]:
    """Yield the cases that cannot be trained on at the resolution that the spec asks for."""
    bare = tuple(survey.case.id for survey in read if survey.resolution is None)
    if bare:
        yield Finding(
            "fault",
            f"resolution {_sides(wanted)} in the spec, and none in the file: leave it out, or give "
            "the file one",
            bare,
        )
    faults: dict[str, str] = {}
    for survey in read:
        if survey.resolution is None:
            continue
        for window in (window for windows in survey.windows.values() for window in windows):
            text = resolution_fault(window, survey.shape, survey.resolution, wanted, survey.unit)
            if text is not None:
                faults.setdefault(survey.case.id, text)
    if faults:
        first = next(iter(faults.values()))
        more = f" ({next(iter(faults))}; the others alike)" if len(faults) > 1 else ""
        yield Finding("fault", f"{first}{more}", tuple(faults))


def _sides(sides: Sequence[float]) -> str:
    return " x ".join(f"{side:.6g}" for side in sides)
