"""The report of a training run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from segfocal.data.plan import Plan
from segfocal.data.spec import DatasetSpec
from segfocal.report.charts import line_chart
from segfocal.report.environment import environment
from segfocal.report.page import (
    count_cell,
    facts,
    legend,
    name_cell,
    page,
    section,
    table,
    text_of,
)

__all__ = ["run_page"]

NOT_CURVES = ("step", "seconds")
HEAD = re.compile(r"(?P<split>val_)?logits(_p(?P<level>\d+))?_(?P<what>.+)")
"""Names of what is measured at one of several heads, at half the resolution of the one before."""

LONG = ("card", "reasons", "fingerprint", "class_pixels", "spec")
"""Parts of a plan that are not one line of it, or stand elsewhere on the page."""


def run_page(
    spec: DatasetSpec, plan: Plan, log: Sequence[dict[str, Any]], *, seconds: float | None = None
) -> str:
    """Return the report of a training run as one HTML page.

    Args:
        spec: The dataset.
        plan: The plan that was followed.
        log: The lines of the run's log: steps, seconds, and what was measured.
        seconds: How long it took, if known.
    """
    log = [{_plain_name(name): value for name, value in line.items()} for line in log]
    steps = int(log[-1]["step"]) if log else 0
    took = "" if seconds is None else f" in {_duration(seconds)}"
    return page(
        f"{spec.name}: training",
        f"{steps} of {plan.steps} steps{took}, preset {plan.preset}, {spec.ndim}-D",
        [
            _summary(log),
            section("Learning curves", _curves(log)),
            section("Classes", legend(spec.classes), _class_table(spec, plan)),
            section("Plan", _plan_table(plan)),
            section("Channels", _channel_table(plan)),
            _dataset(spec),
            section("Environment", facts(environment())),
        ],
    )


def _plain_name(name: str) -> str:
    """Return what is shown of a name in the log; with several heads it begins with one's name.

    Scores are of the head that is saved; the loss is that of all, with their own beside it.
    """
    found = HEAD.fullmatch(name)
    if found is None:
        return name
    split, level, what = found["split"] or "", int(found["level"] or 0), found["what"]
    if not level and what != "loss":
        return f"{split}{what}"
    return f"{split}{what} at {f'1/{2**level}' if level else 'full'} resolution"


def _summary(log: Sequence[dict[str, Any]]) -> str:
    if not log:
        return ""
    tiles = "".join(
        f'<div class="tile"><span>{_words(name)}, at the end</span><b>{text_of(log[-1][name])}</b>'
        "</div>"
        for name in ("loss", "mean_iou", "val_loss", "val_mean_iou", "val_mean_dice")
        if isinstance(log[-1].get(name), int | float)
    )
    return f'<div class="tiles">{tiles}</div>'


def _curves(log: Sequence[dict[str, Any]]) -> str:
    """Return a chart per quantity, with its value on the validation split in the same one."""
    names = list(dict.fromkeys(name for line in log for name in line if name not in NOT_CURVES))
    charts = []
    for name in names:
        if name.startswith("val_") and name.removeprefix("val_") in names:
            continue
        curves = {
            label: [
                (float(line["step"]), float(line[key]))
                for line in log
                if isinstance(line.get(key), int | float)
            ]
            for label, key in (("training", name), ("validation", f"val_{name}"))
        }
        charts.append(line_chart(_words(name), curves, "step"))
    return f'<div class="charts">{"".join(charts)}</div>'


def _class_table(spec: DatasetSpec, plan: Plan) -> str:
    total = max(sum(plan.class_pixels), 1)
    shares = [pixels / total for pixels in plan.class_pixels]
    if plan.fingerprint is not None:  # of regions that overlap the sum is not all there is
        shares = list(plan.fingerprint.class_shares)
    rows = [
        [
            name_cell(label.name, label.color),
            count_cell(pixels),
            count_cell(round(1000 * share) / 10),  # type: ignore[arg-type]
        ]
        for label, pixels, share in zip(spec.classes, plan.class_pixels, shares, strict=False)
    ]
    return table(["class", "training pixels", "%"], rows, name="classes") if rows else ""


def _plan_table(plan: Plan) -> str:
    values = plan.model_dump(mode="json")
    reasons = values.get("reasons") or {}
    rows = [
        (_words(name), _plain(value, " × " if name == "patch" else ", "), reasons.get(name, ""))
        for name, value in values.items()
        if name not in LONG and value not in (None, [], {})
    ]
    # Reasons of what the card holds, such as its resolution.
    rows += [
        (_words(name), _of_card(name, values["card"]), reason)
        for name, reason in reasons.items()
        if name not in values or name in LONG
    ]
    if not any(reason for *_, reason in rows):
        return facts([(name, value) for name, value, _ in rows])
    return facts(rows, ("", "value", "why"), reasons=True)


def _of_card(name: str, card: dict[str, Any]) -> str:
    """Return what the card holds where a reason is of ``card.something``; else nothing."""
    where, _, what = name.partition(".")
    value = card.get(what) if where == "card" else None
    return "" if value is None else _plain(value, " × ")


def _channel_table(plan: Plan) -> str:
    rows = [
        (
            channel.name,
            f"{channel.mean:.5g}",
            f"{channel.std:.5g}",
            "–" if channel.low is None else f"{channel.low:.5g}",
            "–" if channel.high is None else f"{channel.high:.5g}",
        )
        for channel in plan.card.channels
    ]
    return facts(rows, ("channel", "mean", "deviation", "0.5 %", "99.5 %"))


def _dataset(spec: DatasetSpec) -> str:
    rows = [
        (name, text)
        for name in ("description", "licence", "citation", "source")
        if isinstance(text := getattr(spec, name, ""), str) and text
    ]
    return section("Dataset", facts(rows)) if rows else ""


def _words(name: str) -> str:
    return name.replace("_", " ").replace("iou", "IoU")


def _plain(value: object, between: str = ", ") -> str:
    if isinstance(value, list):
        return between.join(_plain(one) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{_words(key)} {_plain(one)}" for key, one in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
