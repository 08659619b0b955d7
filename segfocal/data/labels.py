"""Label files: what kind they are and how they are read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from segfocal.data.cases import Name
from segfocal.data.document import Entry

__all__ = ["LabelRule"]

LabelKind = Literal["values", "colors", "vector", "instances", "masks"]


class LabelRule(Entry):
    """How label files are read.

    Attributes:
        kind: ``"values"``: class values; ``"colors"``: RGB colours; ``"vector"``: polygons of
            a GeoPackage, GeoJSON or Shapefile; ``"instances"``: a number for each object,
            all of the one class above background; ``"masks"``: a file for each class, above 0
            inside, with ``{class}`` in the path for its name; of masks that overlap the later
            class counts, and a class without a file does not occur (``spec check`` tells it).
        band: Which band holds the labels, counted from 1.
        nodata: Value without a label, where the file does not say it.
        honour_nodata: False: what the file calls nodata is labelled all the same.
        tolerance: Largest difference of a colour's parts from the class's colour.
        layer: Layer of a vector file; left out, the first.
        class_field: Attribute that tells the class; left out, all polygons are the one class.
        draw_order: Which of overlapping polygons is on top: ``"file"`` the later, ``"area"``
            the smaller, ``"classes"`` the later in the class table; or an attribute: the
            higher.
        all_touched: Count each pixel that a polygon touches, instead of those whose centre
            lies inside.
        outside: Class of what no polygon covers, or ``"ignore"``; left out, the class with
            value 0, and ignored when there is none.
    """

    kind: LabelKind = "values"
    band: Annotated[int, Field(ge=1, le=65535)] = 1
    nodata: float | None = None
    honour_nodata: bool = True
    tolerance: Annotated[int, Field(ge=0, le=255)] = 0
    layer: Name | None = None
    class_field: Name | None = None
    draw_order: Name = "file"
    all_touched: bool = False
    outside: Name | None = None

    @model_validator(mode="after")
    def _of_its_kind(self) -> LabelRule:
        vector = ("layer", "class_field", "outside")
        for key, kind in [("tolerance", "colors"), *((key, "vector") for key in vector)]:
            if getattr(self, key) and self.kind != kind:
                raise ValueError(f"{key} is for labels of kind {kind}; found kind {self.kind}")
        if (self.all_touched or self.draw_order != "file") and self.kind != "vector":
            raise ValueError("draw_order and all_touched are for labels of kind vector")
        if self.nodata is not None and not self.honour_nodata:
            raise ValueError("nodata is given and not honoured; leave one out")
        return self
