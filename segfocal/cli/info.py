"""``segfocal info``."""

from __future__ import annotations

import json
from typing import Any

import click

from segfocal.cli.class_table import class_table


@click.command()
@click.argument("path", type=str)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def info(path: str, as_json: bool) -> None:
    """Say what PATH is: a scan, a model (.keras or exported) or a dataset spec (.yaml)."""
    from segfocal.inspection import inspect

    found = inspect(path)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    card = found.pop("card", None)
    result = found.get("provenance", {}).get("result", {})
    classes = result.pop("classes", [])
    for key, value in {**found, **(card or {})}.items():
        if key == "provenance":
            _show_provenance(value)
        else:
            click.echo(f"{key + ':':18}{_line(value)}")
    if classes:
        click.echo(class_table(classes, result.get("invalid_pixels", 0)))


def _show_provenance(provenance: dict[str, Any]) -> None:
    """Print where a label map comes from, a line for each thing known."""
    click.echo("provenance:")
    for key, value in provenance.items():
        if value not in (None, "", [], {}) and key not in ("kind", "format"):
            click.echo(f"  {key + ':':16}{_line(value)}")


def _line(value: Any) -> str:
    """Return a value on one line: names rather than nested objects."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return ", ".join(_short(item) for item in value)
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        return "; ".join(
            f"{key} {_line(item)}" for key, item in value.items() if item not in (None, "", [], {})
        )
    return "-" if value is None else str(value)


def _short(item: dict[str, Any]) -> str:
    if "value" in item:
        return f"{item['value']} {item['name']}"
    return str(item.get("name") or item.get("id") or item.get("case"))
