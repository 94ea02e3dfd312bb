"""Serves one call of the host: find the function, run it, send back its value or what went wrong."""

from __future__ import annotations

import functools
import importlib
import traceback
from collections.abc import Callable
from typing import Any

from pytest_kernelfs.guest import importing
from pytest_kernelfs.guest.exchange import Exchange

# What the host has execnet run for each call.
CALL = "from pytest_kernelfs.guest.dispatch import serve\nserve(channel)"
compile_once = functools.lru_cache(maxsize=64)(compile)


class GuestError(Exception):
    """Something that was asked for could not be done; the message is complete in itself."""


def serve(channel: Any) -> None:
    """Receive ``(kind, payload, args, kwargs)`` from the channel, send ``("ok", value)`` or an error.

    ``kind`` is "name" (payload: module, function), "source" (payload: source, function), or "exchange":
    as "name", with an ``Exchange`` for the function's first argument; what that sends is ``("item", item)``.
    Errors are ``("error", type name, message, traceback)``. A source may ask for modules:
    ``("import", name)``.
    """
    kind, (first, name), args, kwargs = channel.receive()
    try:
        if kind == "source":
            with importing.from_host(channel):
                value = compile_source(first, name)(*args, **kwargs)
        else:
            function = getattr(importlib.import_module(first), name)
            value = _converse(channel, function, args) if kind == "exchange" else function(*args, **kwargs)
    except (Exception, SystemExit) as error:  # sys.exit() of a function ends that, not us
        channel.send(("error", type(error).__name__, str(error), traceback.format_exc()))
        return
    try:
        channel.send(("ok", value))
    except Exception as error:
        text = f"{name} gave a value that cannot be sent back: {error}"
        channel.send(("error", "DumpError", text, ""))


def _converse(channel: Any, function: Callable[..., Any], args: list[Any]) -> Any:
    exchange = Exchange(channel)
    try:
        return function(exchange, *args)
    finally:
        exchange.inbox.close()


def compile_source(source: str, name: str) -> Callable[..., Any]:
    """The function of that name which a piece of source defines."""
    namespace: dict[str, Any] = {"__name__": "kernelfs_call"}
    exec(compile(source, f"<vm.call {name}>", "exec"), namespace)
    function: Callable[..., Any] = namespace[name]
    return function
