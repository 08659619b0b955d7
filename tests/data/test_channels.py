"""Which channels go to the network, in which order, and which pixels count."""

from __future__ import annotations

import numpy as np
import pytest

from segfocal.data.channels import match_channels, usable_pixels
from segfocal.errors import ChannelError
from segfocal.io import MemoryScan
from segfocal.types import Patch, full_window


def scan(*names: str, count: int = 0) -> MemoryScan:
    """A scan whose channel k holds the value k."""
    channels = len(names) or count
    array = np.broadcast_to(np.arange(channels), (2, 3, channels))
    return MemoryScan(array, channels=names or None, name="scene.tif")


@pytest.mark.parametrize(
    "wanted",
    [
        ("blue", "green", "red", "nir"),
        ("nir", "red", "green", "blue"),
        ("green",),
        ("nir", "blue"),
    ],
)
def test_named_channels_come_in_the_networks_order(wanted):
    names = ("blue", "green", "red", "nir")
    opened = scan(*names)
    chosen = match_channels(opened, wanted, by_name=True)
    pixel = opened.read(full_window(opened.shape), chosen).values[0, 0]
    assert [names[value] for value in pixel] == list(wanted)


@pytest.mark.parametrize("wanted", [("red", "swir"), ("Red",), ("red", "nir", "swir")])
def test_a_missing_name_is_refused_with_what_is_there(wanted):
    with pytest.raises(ChannelError) as caught:
        match_channels(scan("red", "nir"), wanted, by_name=True)
    message = str(caught.value)
    missing = ", ".join(name for name in wanted if name not in ("red", "nir"))
    assert message.startswith("scene.tif: has channels red, nir; the model expects ")
    assert f"{', '.join(wanted)}, and {missing} is missing" in message


def test_a_scan_without_names_is_matched_by_position():
    assert match_channels(scan(count=3), ("red", "nir", "swir"), by_name=True) == (0, 1, 2)


def test_names_that_mean_nothing_are_not_looked_up():
    assert match_channels(scan("b", "a"), ("a", "b"), by_name=False) == (0, 1)


@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize(
    ("count", "wanted", "expected"),
    [
        (1, ("a", "b"), r"has 1 channel; the model expects 2 channels \(a, b\)"),
        (4, ("a",), r"has 4 channels; the model expects 1 channel \(a\)"),
    ],
)
def test_a_wrong_number_of_channels_is_refused(count, wanted, expected, by_name):
    with pytest.raises(ChannelError, match=f"scene.tif: {expected}"):
        match_channels(scan(count=count), wanted, by_name=by_name)


def test_more_channels_than_wanted_are_refused_by_position_even_if_named():
    with pytest.raises(ChannelError, match="has 3 channels; the model expects 2 channels"):
        match_channels(scan("a", "b", "c"), ("a", "b"), by_name=False)


def test_a_pixel_counts_when_all_or_any_of_its_channels_do():
    valid = np.array([[[True, True], [True, False]], [[False, True], [False, False]]])
    patch = Patch(np.zeros(valid.shape), valid)
    assert usable_pixels(patch, "all").tolist() == [[True, False], [False, False]]
    assert usable_pixels(patch, "any").tolist() == [[True, True], [True, False]]
