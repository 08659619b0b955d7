from __future__ import annotations

import sys

import numpy as np
import pytest

from segfocal.engine.memory import is_out_of_memory, parse_bytes, peak_bytes
from segfocal.errors import GeometryError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (5, 5),
        ("5", 5),
        ("4GB", 4 * 10**9),
        ("1.5 gb", 15 * 10**8),
        ("2GiB", 2 * 2**30),
        ("3 k", 3000),
        ("7MiB", 7 * 2**20),
    ],
)
def test_sizes_are_understood(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", 0, "0GB", "4 GBs", True, "four"])
def test_other_text_is_refused(text):
    with pytest.raises(GeometryError, match="expected bytes, or a number with KB, MB or GB"):
        parse_bytes(text)


@pytest.mark.skipif(sys.platform != "linux", reason="told by Linux only")
def test_the_peak_of_a_call_is_seen_and_earlier_ones_are_not():
    def take(megabytes):
        return np.ones(megabytes * 2**20, np.uint8).sum()

    _, before = peak_bytes(lambda: None)
    total, large = peak_bytes(lambda: take(300))
    assert total == 300 * 2**20
    assert large - before == pytest.approx(300 * 2**20, rel=0.2)
    _, small = peak_bytes(lambda: take(50))
    assert small - before == pytest.approx(50 * 2**20, rel=0.5)


def test_what_libraries_raise_when_memory_runs_out():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(type("ResourceExhaustedError", (Exception,), {})())
    assert is_out_of_memory(type("XlaRuntimeError", (Exception,), {})("RESOURCE_EXHAUSTED: x"))
    assert not is_out_of_memory(type("XlaRuntimeError", (Exception,), {})("INTERNAL"))
    assert not is_out_of_memory(ValueError("memory"))
