"""Vector labels: polygons drawn on the grid of a scene, window by window.

Needs the extra ``vector`` (pyogrio and shapely).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from segfocal.errors import ScanError
from segfocal.io.aligned import aligned_blocks
from segfocal.io.base import Scan, check_window, grid_of
from segfocal.io.channels import channel_indices
from segfocal.io.vector_layers import drawn_layer
from segfocal.types import Patch, Window, window_shape

__all__ = ["VECTOR_SUFFIXES", "VectorScan"]

VECTOR_SUFFIXES = (".gpkg", ".geojson", ".json", ".shp", ".fgb")


class VectorScan:
    """Polygons of a file as a scan of one channel on the grid of a scene.

    A pixel has the value of the polygon on top that holds its centre. Lines and points count
    as the pixels they lie in. Polygons of the scene's place are held in memory. Those that its
    CRS has no place for are left out with a warning.

    Args:
        path: GeoPackage, GeoJSON, Shapefile or FlatGeobuf.
        scene: An open scene with a CRS; not closed with this one.
        values: Value for each text of ``field``; without a field, the value for ``""``.
        field: Attribute that is looked up in ``values``.
        layer: Layer of the file; the first when left out.
        order: ``"file"``: later polygons lie on top; ``"area"``: smaller ones;
            ``"classes"``: those later in ``values``; else an attribute: higher ones.
        all_touched: Fill every pixel that a polygon touches.
        outside: Value of what no polygon covers; None: it is not valid.

    Raises:
        ScanNotFoundError: There is no such file.
        ScanError: The file cannot be read, lacks an attribute, or holds a text that is not in
            ``values``; none of its shapes has a place in its CRS; pyogrio is not installed; the
            scene lies nowhere.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        scene: Scan,
        values: Mapping[str, int],
        *,
        field: str | None = None,
        layer: str | None = None,
        order: str = "file",
        all_touched: bool = False,
        outside: int | None = None,
    ) -> None:
        self.name = os.fspath(path)
        grid: Any = grid_of(scene)
        if getattr(grid, "crs", None) is None:
            raise ScanError(
                f"{scene.name}: has no CRS, so the polygons of {self.name} have no place in it; "
                "expected a georeferenced scene"
            )
        self.grid, self.shape = grid, grid.shape
        self.channels: tuple[str, ...] = ("label",)
        self.channels_are_named = False
        self.channel_note = ""
        self.dtype: np.dtype = np.dtype(np.int32)
        self.slow_axis, self.resolution = grid.slow_axis, grid.resolution
        self.files: tuple[str, ...] = (self.name,)
        self._touched, self._outside = all_touched, outside
        shapes, self._codes = drawn_layer(
            self.name, grid, values, field=field, layer=layer, order=order
        )
        import shapely

        self._shapes: NDArray[Any] | None = shapes
        self._tree = shapely.STRtree(self._shapes)

    @property
    def count(self) -> int:
        """Number of polygons that touch the scene."""
        return len(self._codes)

    def georeference(self) -> dict[str, Any]:
        """Return that of the scene."""
        return self.grid.georeference()

    def read(self, window: Window, channels: Sequence[int] | None = None) -> Patch:
        """Return the pixels of a window; see :class:`~segfocal.io.base.Scan`."""
        if self._shapes is None:
            raise ValueError(f"{self.name}: the scan is closed")
        check_window(window, self.shape)
        chosen = channel_indices(channels, 1)
        sides = window_shape(window)
        none = np.iinfo(np.int32).min
        codes = np.full(sides, none, np.int32)
        if self._touched:
            # Which pixels an edge on their border touches is decided by rounding, and depends on
            # where the raster begins: always the same blocks give the same pixels in any window.
            for _, block, inside, there in aligned_blocks(window, (BLOCK, BLOCK)):
                codes[there] = self._drawn(block, none)[inside]
        elif codes.size:
            codes = self._drawn(window, none)
        covered = codes != none
        codes[~covered] = 0 if self._outside is None else self._outside
        valid = covered if self._outside is None else np.ones(sides, np.bool_)
        return Patch(codes[..., None][..., chosen], valid[..., None][..., chosen])

    def _drawn(self, window: Window, none: int) -> NDArray[np.int32]:
        """Return the codes of a window, ``none`` where no polygon is."""
        import shapely
        from rasterio.features import rasterize
        from rasterio.transform import Affine

        assert self._shapes is not None
        rows, cols = window
        codes = np.full(window_shape(window), none, np.int32)
        box = shapely.box(cols.start, rows.start, cols.stop, rows.stop)
        there = np.sort(self._tree.query(box))
        if len(there):
            pairs = zip(self._shapes[there], self._codes[there].tolist(), strict=True)
            rasterize(
                pairs,
                out=codes,
                transform=Affine.translation(cols.start, rows.start),
                all_touched=self._touched,
            )
        return codes

    def close(self) -> None:
        """Let go of the polygons."""
        self._shapes = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


BLOCK = 256
"""Side of the blocks in which ``all_touched`` is drawn."""
