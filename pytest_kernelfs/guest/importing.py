"""Imports modules of the host: the source of one that a call asks for comes over its channel, once."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import marshal
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

OURS = "pytest_kernelfs"
# What the host answers: one of these, with source, byte code ("" if ours is another), path, and whether it is
# a package; or with a reason.
SOURCE, NAMESPACE, ABSENT, REFUSED = "source", "namespace", "absent", "refused"
# Known from Python 3.10 on; older ones ask the host.
_STANDARD = frozenset(getattr(sys, "stdlib_module_names", ()))

# Thread of a call, and its channel.
_channels: list[Any] = []
_asking = threading.Lock()
_owner = 0


@contextmanager
def from_host(channel: Any) -> Iterator[None]:
    """Have modules found on the host within the block, before those of this machine."""
    global _owner
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _owner = os.getpid()
    vars(sys.modules[OURS]).setdefault("__getattr__", _stand_in)
    call = (threading.get_ident(), channel)
    _channels.append(call)
    try:
        yield
    finally:
        _channels.remove(call)


def _channel() -> Any:
    """That of the call which this thread serves; in a thread that a call has started, of the latest call."""
    own = [channel for thread, channel in _channels if thread == threading.get_ident()]
    return own[-1] if own else _channels[-1][1]


def _ask(name: str) -> Any:
    if os.getpid() != _owner:
        raise ImportError(
            f"{name} cannot be had from the host in a process that the call has forked; import it before",
            name=name,
        )
    with _asking:
        channel = _channel()
        channel.send(("import", name, importlib.util.MAGIC_NUMBER))
        return channel.receive()


class _OfTheHost(type):
    """The type of what stands for our package's types: modules annotated with them can be imported."""

    def __call__(cls, *_args: object, **_options: object) -> Any:
        raise TypeError(
            f"{OURS}.{cls.__name__} is of the host; in the machine there is no more than its name"
        )


def _stand_in(name: str) -> type:
    """An attribute of our package, of which a machine has the guest's part only."""
    if not name[:1].isupper():
        raise AttributeError(f"module {OURS!r} has no attribute {name!r} in the machine")
    return _OfTheHost(name, (), {})


class _HostLoader:
    """Loads a module from its source; ``get_source`` is for tracebacks."""

    def __init__(self, source: bytes, code: bytes, path: str) -> None:
        self._source = source
        self._code = code
        self._path = path

    def create_module(self, _spec: Any) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        made = self._code and marshal.loads(self._code)
        exec(made or compile(self._source, self._path, "exec", dont_inherit=True), vars(module))

    def get_source(self, _name: str) -> str:
        return importlib.util.decode_source(self._source)


class _HostFinder:
    """The first of ``sys.meta_path``."""

    def find_spec(self, name: str, path: Any = None, _target: Any = None) -> Any:
        if not _channels or name.partition(".")[0] in _STANDARD:
            return None
        kind, *rest = _ask(name)
        if kind == SOURCE:
            source, code, origin, is_package = rest
            loader: Any = _HostLoader(source, code, origin)
            spec = importlib.machinery.ModuleSpec(name, loader, origin=origin, is_package=is_package)
            spec.has_location = True
            return spec
        if kind == NAMESPACE:
            return importlib.machinery.ModuleSpec(name, None, is_package=True)
        if kind == REFUSED:
            here = _spec_of_this_machine(name, path)
            if here is None:
                raise ImportError(rest[0], name=name)
            return here
        return None


def _spec_of_this_machine(name: str, path: Any) -> Any:
    for finder in sys.meta_path:
        if finder is not _finder and hasattr(finder, "find_spec"):
            spec = finder.find_spec(name, path)
            if spec is not None:
                return spec
    return None


_finder = _HostFinder()
