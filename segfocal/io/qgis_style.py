"""The style that QGIS gives polygons of classes: a fill of each class's colour, by value."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from segfocal.card import LabelClass

__all__ = ["STYLE_TABLE", "polygon_style", "style_row"]

STYLE_TABLE = "layer_styles"
"""Table of a GeoPackage in which QGIS looks for the default style of a layer."""


def polygon_style(classes: Sequence[LabelClass]) -> str:
    """Return the style as the text of a ``.qml`` file."""
    root = ElementTree.Element("qgis", version="3.22", styleCategories="Symbology")
    renderer = ElementTree.SubElement(root, "renderer-v2", type="categorizedSymbol", attr="value")
    categories = ElementTree.SubElement(renderer, "categories")
    symbols = ElementTree.SubElement(renderer, "symbols")
    for place, label in enumerate(classes):
        name = str(place)
        ElementTree.SubElement(
            categories, "category", symbol=name, value=str(label.value), label=label.name,
            type="long", render="true",
        )  # fmt: skip
        symbol = ElementTree.SubElement(symbols, "symbol", name=name, type="fill", alpha="1")
        layer = ElementTree.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1"})
        options = ElementTree.SubElement(layer, "Option", type="Map")
        color = ",".join(str(part) for part in (*label.color, 255))
        for key, value in (("color", color), ("outline_style", "no"), ("style", "solid")):
            ElementTree.SubElement(options, "Option", name=key, value=value, type="QString")
    ElementTree.indent(root)
    head = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    return head + ElementTree.tostring(root, encoding="unicode")


def style_row(layer: str, geometry: str, style: str) -> dict[str, np.ndarray]:
    """Return the row of :data:`STYLE_TABLE` that makes a style a layer's default."""

    def text(value: str) -> np.ndarray:
        return np.array([value], object)

    return {
        "f_table_catalog": text(""),
        "f_table_schema": text(""),
        "f_table_name": text(layer),
        "f_geometry_column": text(geometry),
        "styleName": text("classes"),
        "styleQML": text(style),
        "styleSLD": text(""),
        "useAsDefault": np.array([True]),
        "description": text("colours of the classes"),
        "owner": text(""),
        "ui": text(""),
        "update_time": np.array(["2000-01-01T00:00:00"], "datetime64[ms]"),
    }
