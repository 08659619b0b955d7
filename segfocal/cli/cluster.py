"""Options of ``segfocal predict`` that say which processes do the work."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

__all__ = ["cluster_arguments", "cluster_options", "stdout_for_results"]


@contextlib.contextmanager
def stdout_for_results() -> Iterator[None]:
    """Send what Ray prints on stdout, such as news of lost processes, to stderr."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def cluster_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a Ray cluster to a command."""
    for option in (
        click.option(
            "--parts",
            type=click.IntRange(min=1),
            metavar="N",
            help="Parts that the cluster divides each scan into. Default: one per 8192 pixels of "
            "its longer side, which keeps the tiles that are run twice below 10 %.",
        ),
        click.option(
            "--address",
            metavar="ADDRESS",
            help="Address of a running Ray cluster, such as auto or ray://head:10001. Default: a "
            "cluster of this machine for the time of the command.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            metavar="N",
            help="Processes of the cluster that hold the model. Default: one per GPU, or without "
            "GPUs one per CPU.",
        ),
        click.option(
            "--executor",
            type=click.Choice(["serial", "ray"]),
            default="serial",
            show_default=True,
            help="serial: this process does all. ray: the processes of a Ray cluster do, long "
            "scans part by part, with the same bytes as a result; needs pip install "
            "'segfocal[ray]'.",
        ),
    ):
        command = option(command)
    return command


def cluster_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options of the cluster out of a command's options.

    Returns:
        ``executor`` and, with Ray, ``workers``, ``parts`` and ``address``.
    """
    executor = options.pop("executor")
    found = {name: options.pop(name) for name in ("workers", "parts", "address")}
    if executor == "serial":
        given = [f"--{name}" for name, value in found.items() if value is not None]
        if given:
            raise click.UsageError(f"{', '.join(given)} goes with --executor ray")
        return {"executor": executor}
    return {"executor": executor, **found}
