"""Measurements that survive a stop, and the Markdown tables made from them."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Results", "code_digest", "page_options", "parse", "spread", "table", "write_tables"]

BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"


class Results(dict[str, Any]):
    """Measurements by name, kept in a JSON file that is written when one is added.

    Args:
        path: The file; what it holds need not be measured again.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(json.loads(path.read_text()) if path.exists() else {})
        self._path = path

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        print(f"{name}: {value}", flush=True)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self, indent=1) + "\n")


def code_digest() -> str:
    """Return a digest of the package's code."""
    package = Path(importlib.util.find_spec("segfocal").origin).parent  # type: ignore
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Return the mean of some numbers and, of several, half the distance of their extremes."""
    numbers = np.asarray(values, np.float64)
    mean = f"{numbers.mean():.{digits}f}"
    return mean if len(numbers) < 2 else f"{mean} ± {np.ptp(numbers) / 2:.{digits}f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_tables(path: Path, title: str, script: str, parts: Sequence[str]) -> None:
    """Print tables and put them into a page, between two markers; its text around them stays."""
    text = "\n\n".join(parts)
    print(text)
    if path.exists():
        before, _, rest = path.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
    else:
        before, after = f"# {title}\n\n```bash\npython benchmarks/{script}\n```\n\n", "\n"
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def page_options(parser: argparse.ArgumentParser, script: str) -> None:
    """Add the option that says which page is written."""
    page = Path(script).with_suffix(".md")
    parser.add_argument(
        "--out", "--output", type=Path, default=page, help=f"page to write ({page.name})"
    )


def parse(script: str, summary: str | None, seeds: int = 3) -> argparse.Namespace:
    """Return the options of a benchmark's command line."""
    parser = argparse.ArgumentParser(description=(summary or "").partition("\n")[0])
    work = Path(tempfile.gettempdir()) / "segfocal-benchmarks"
    parser.add_argument("--seeds", type=int, nargs="+", default=[*range(seeds)])
    parser.add_argument("--steps", type=int, help="training steps; left out, as in the demo")
    parser.add_argument(
        "--work", type=Path, default=work, help=f"folder of models and measurements ({work})"
    )
    page_options(parser, script)
    return parser.parse_args()
