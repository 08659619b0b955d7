"""The lines that ``segfocal plan`` prints: each number with its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segfocal import Plan
    from segfocal.card import Channel

__all__ = ["plan_lines"]

MOST_CHANNELS = 4
NORMALIZATION = "normalization."


def plan_lines(plan: Plan) -> list[tuple[str, str]]:
    """Return what to print of a plan: names, and values with their reasons.

    Channels that are normalized alike share a line.
    """
    alike: dict[str, list[Channel]] = {}
    for channel in plan.card.channels:
        reason = plan.reasons.get(f"{NORMALIZATION}{channel.name}")
        if reason is not None:
            alike.setdefault(reason, []).append(channel)
    lines = []
    for key, reason in plan.reasons.items():
        if not key.startswith(NORMALIZATION):
            lines.append((key, f"{_value(plan, key)} - {reason}"))
        elif reason in alike:
            lines.append(("normalization", f"{_numbers(alike.pop(reason))} - {reason}"))
    return lines


def _value(plan: Plan, key: str) -> str:
    if key == "class_chances":
        return _chances(plan)
    if key == "augmentation":
        settings = [] if plan.augmentation is None else list(plan.augmentation)
        on = [name for name, value in settings if (getattr(value, "probability", value) or 0) > 0]
        return ", ".join(name.replace("_", " ") for name in on) or "none"
    value = getattr(plan.card, key[5:]) if key.startswith("card.") else getattr(plan, key)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        joint = ", " if key == "mirror_axes" else " x "
        return joint.join(f"{side:.6g}" for side in value) or "none"
    return "none" if value is None else f"{value}"


def _chances(plan: Plan) -> str:
    """Return the chance that most classes have, and which have another."""
    by_chance: dict[float, list[str]] = {}
    for label, chance in zip(plan.card.classes, plan.class_chances, strict=True):
        by_chance.setdefault(chance, []).append(label.name)
    usual = max(by_chance, key=lambda chance: (len(by_chance[chance]), chance))
    others = [
        f"{chance:g} for {', '.join(n)}" for chance, n in by_chance.items() if chance != usual
    ]
    return ", but ".join([f"{usual:g}", *others])


def _numbers(channels: list[Channel]) -> str:
    shown = [_mean_and_deviation(channel) for channel in channels[:MOST_CHANNELS]]
    left = len(channels) - MOST_CHANNELS
    return ", ".join(shown) + (f" and {left} more" if left > 0 else "")


def _mean_and_deviation(channel: Channel) -> str:
    if channel.normalization is not None:  # of each scan by itself
        return channel.name
    return f"{channel.name} {channel.mean:.4g} ± {channel.std:.4g}"
