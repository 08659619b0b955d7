"""Reports for people: self-contained HTML pages, and pictures of scans, labels and predictions."""

from segfocal.report.evaluation_page import evaluation_page
from segfocal.report.pictures import (
    Panel,
    Picture,
    blend_labels,
    colorize,
    draw_sheet,
    mark_errors,
    stretch,
)
from segfocal.report.run_page import run_page

__all__ = [
    "Panel",
    "Picture",
    "blend_labels",
    "colorize",
    "draw_sheet",
    "evaluation_page",
    "mark_errors",
    "run_page",
    "stretch",
]
