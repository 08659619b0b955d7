"""Connecting to a Ray cluster, or starting one of this machine."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from segfocal.errors import ModelError

__all__ = ["connected"]

SECONDS_FOR_A_CONNECTION = 10
OBJECT_STORE_BYTES = 100 * 10**6


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Yield the module ``ray``, connected to a cluster for the block.

    Args:
        address: Of a running cluster. None: the one that this process is connected to already,
            else one of this machine that ends with the block.

    Raises:
        ModelError: Ray is not installed, or there is no cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise ModelError(
            f"Ray is not installed ({error}); install the extra: pip install 'segfocal[ray]'"
        ) from error
    mine = not ray.is_initialized()
    if mine:
        local: dict[str, Any] = {"include_dashboard": False}
        local |= {"object_store_memory": OBJECT_STORE_BYTES}
        _check_is_there(address)
        try:
            with _own_handlers():
                # Not None, with which Ray looks for one that somebody else may have left behind.
                ray.init(
                    address or "local",
                    logging_level="ERROR",
                    log_to_driver=False,
                    **({} if address else local),
                )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise _no_cluster(address, error) from error
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Keep this program's handlers of signals in force, in place of which Ray puts its own.

    Ray's ends the process in its own way, in the seconds that Ray takes to start too. Blocked
    signals would stay blocked in the processes that it starts.
    """
    handlers, original = _handlers(), signal.signal

    def guarded(number: Any, handler: Any) -> Any:
        # A stop that is under way ignores further signals; Ray brings a function.
        if number in handlers and callable(handler):
            return handlers[number]
        return original(number, handler)

    signal.signal = guarded  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = original
        for number, handler in handlers.items():  # what Ray does below Python too
            signal.signal(number, handler)


def _handlers() -> dict[int, Any]:
    """Return this program's own handlers of signals, which Ray replaces by some of its own."""
    if threading.current_thread() is not threading.main_thread():
        return {}  # where neither Ray nor anybody else can set any
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    found = {number: signal.getsignal(number) for number in numbers}
    # What the system does by itself is left to Ray.
    return {
        number: handler
        for number, handler in found.items()
        if callable(handler) or handler == signal.SIG_IGN
    }


def _check_is_there(address: str | None) -> None:
    """Raise if nobody listens at an address: Ray itself would go on trying for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_FOR_A_CONNECTION).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str | None, error: Exception) -> ModelError:
    text = " ".join(str(error).split())
    return ModelError(
        f"no Ray cluster at {address or 'this machine'} ({text}); expected its address, or none"
    )
