"""The table that ``segfocal spec check`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from segfocal.spec_check import SpecCheck

__all__ = ["print_check"]

MARKS = {"fault": ("✗", "bold red"), "warning": ("!", "yellow"), "notice": ("·", "cyan")}
MOST_CASES = 12
MOST_CLASSES = 40


def print_check(found: SpecCheck) -> None:
    """Print a check for people: what is there, what it holds, and what to know."""
    console = Console(highlight=False)
    if not console.is_terminal:  # a pipe has no edge to wrap at
        console = Console(highlight=False, width=140)
    spec = found.spec
    size = f"{len(spec.cases)} case{'s' if len(spec.cases) != 1 else ''}"
    kind = "scenes" if spec.ndim == 2 else "volumes"
    width = f"{len(spec.channels)} channel{'s' if len(spec.channels) != 1 else ''}"
    console.print(f"[bold]{escape(spec.name)}[/]  {size}, {kind}, {width}")
    if spec.description:
        console.print(escape(spec.description), style="dim", soft_wrap=True)
    console.print(_cases(found))
    if any(survey.pixels for survey in found.surveys):
        console.print(_classes(found))
        console.print(_channels(found))
    for finding in found.findings:
        mark, style = MARKS[finding.level]
        where = f"{_some(finding.cases)}: " if finding.cases else ""
        line = Text.assemble((f"{mark} ", style), (where, "bold"), finding.text)
        console.print(line, soft_wrap=True)
    faults = sum(finding.level == "fault" for finding in found.findings)
    if faults:
        many = "faults" if faults > 1 else "fault"
        console.print(f"[bold red]{faults} {many}: mend before training[/]")
    else:
        console.print("[bold green]ready to train on[/]")


def _table(*columns: tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name, justify in columns:
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    return table


def _cases(found: SpecCheck) -> Table:
    table = _table(
        ("case", "left"), ("split", "left"), ("size", "right"), ("pixel", "right"),
        ("type", "left"), ("values", "right"), ("labelled", "right"),
    )  # fmt: skip
    for survey in found.surveys[:MOST_CASES]:
        known = survey.pixels > 0
        table.add_row(
            survey.case.id,
            ", ".join(survey.windows) or "-",
            " x ".join(str(side) for side in survey.shape) or "-",
            _pixel(survey.resolution),
            survey.dtype or "-",
            _share(survey.usable, survey.pixels) if known else "-",
            _share(survey.labelled, survey.pixels) if known else "-",
            style="red" if survey.error else None,
        )
    left = len(found.surveys) - MOST_CASES
    if left > 0:
        table.add_row(f"... and {left} more", style="dim")
    return table


def _classes(found: SpecCheck) -> Table:
    spec = found.spec
    splits = spec.split_names
    table = _table(
        ("", "left"), ("value", "right"), ("class", "left"),
        *[(f"{split}, pixels", "right") for split in splits], ("share", "right"),
    )  # fmt: skip
    counts = {split: found.class_pixels(split) for split in splits}
    # Of regions that overlap the shares may add up to more than all.
    total = sum(survey.split_labelled.total() for survey in found.surveys)
    for k, label in enumerate(spec.classes[:MOST_CLASSES]):
        own = [counts[split][k] for split in splits]
        table.add_row(
            Text("██", style=f"rgb({label.color[0]},{label.color[1]},{label.color[2]})"),
            str(label.value),
            label.name,
            *[f"{pixels:,}".replace(",", " ") for pixels in own],
            _share(sum(own), total),
            style="dim" if not sum(own) else None,
        )
    left = len(spec.classes) - MOST_CLASSES
    if left > 0:
        table.add_row("", "", f"... and {left} more", style="dim")
    return table


def _channels(found: SpecCheck) -> Table:
    table = _table(("channel", "left"), ("from", "right"), ("to", "right"), ("no value", "right"))
    for name in found.spec.channels:
        own = [s.channels[name] for s in found.surveys if name in s.channels]
        lows = [channel.low for channel in own if channel.low is not None]
        highs = [channel.high for channel in own if channel.high is not None]
        pixels = sum(survey.pixels for survey in found.surveys if name in survey.channels)
        valid = sum(channel.valid for channel in own)
        table.add_row(
            name,
            f"{min(lows):.6g}" if lows else "-",
            f"{max(highs):.6g}" if highs else "-",
            _share(pixels - valid, pixels),
        )
    return table


def _pixel(resolution: tuple[float, ...] | None) -> str:
    if resolution is None:
        return "-"
    sides = [f"{side:.4g}" for side in resolution]
    return sides[0] if len(set(sides)) == 1 else " x ".join(sides)


def _share(part: int, whole: int) -> str:
    if not whole or not part:
        return "0 %"
    percent = 100 * part / whole
    if part < whole and percent > 99.9:
        return ">99.9 %"
    return f"{percent:.1f} %" if percent >= 0.1 else "<0.1 %"


def _some(names: Any) -> str:
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown
