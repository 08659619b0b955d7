"""Loading Keras and its backend without their start-up chatter.

TensorFlow writes notices about processors, absent GPUs and logging itself to standard error
while it is loaded, some of them whatever the log level. They are taken out; everything else
that is written in that time, errors above all, is passed on.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["error_stream", "keras_backend", "load_keras", "many_models"]

_error_stream = 2

_CHATTER = re.compile(
    rb"^(WARNING: All log messages before absl::InitializeLog"
    rb"|[IW]\d{4} \d\d:\d\d:\d\d"
    rb"|E\d{4} .*(failed call to cuInit|Unable to register cu\w+ factory)"
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IW] "
    rb"|To enable the following instructions:)"
)


def error_stream() -> int:
    """Return the file descriptor of the real standard error, while it is captured too."""
    return _error_stream


def keras_backend() -> str:
    """Return the name of Keras's backend, without importing Keras."""
    if "keras" in sys.modules:
        return str(sys.modules["keras"].backend.backend())
    chosen = os.environ.get("KERAS_BACKEND")
    if chosen:
        return chosen
    folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        return str(json.loads((folder / "keras.json").read_text(encoding="utf-8"))["backend"])
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow"


def load_keras() -> None:
    """Import Keras with its backend, once, quietly."""
    global _error_stream
    if "keras" in sys.modules:
        return
    # Filters what TensorFlow logs later on; errors stay. A value set by the user wins.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        sys.stderr.flush()
        saved = os.dup(2)
    except (AttributeError, OSError):  # no stderr to speak of, as under a GUI
        importlib.import_module("keras")
        return
    with tempfile.TemporaryFile() as captured:
        _error_stream = saved
        os.dup2(captured.fileno(), 2)
        try:
            keras = importlib.import_module("keras")
            # The search for GPUs is the last to complain, at the first computation.
            keras.ops.convert_to_tensor(0.0)
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            _error_stream = 2
            os.close(saved)
            captured.seek(0)
            for line in captured.read().splitlines(keepends=True):
                if line.strip() and not _CHATTER.match(line):
                    os.write(2, line)


@contextlib.contextmanager
def many_models() -> Iterator[None]:
    """Let the block run one model after another without TensorFlow's advice on retracing.

    It takes several models for one that is compiled again and again.
    """

    def other(record: logging.LogRecord) -> bool:
        return "retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)
