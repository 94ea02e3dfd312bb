"""Imports modules of the host: the source of one that a call asks for comes over its channel, once."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

OURS = "pytest_kernelfs"
# What the host answers: one of these, with source, path and whether it is a package; or with a reason.
SOURCE, NAMESPACE, ABSENT, REFUSED = "source", "namespace", "absent", "refused"
# Known from Python 3.10 on; older ones ask the host.
_STANDARD = frozenset(getattr(sys, "stdlib_module_names", ()))

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
    package = vars(sys.modules[OURS])
    package.setdefault("__getattr__", _complete)
    _channels.append(channel)
    try:
        yield
    finally:
        _channels.remove(channel)


def _ask(name: str) -> Any:
    if os.getpid() != _owner:
        raise ImportError(
            f"{name} cannot be had from the host in a process that the call has forked; import it before",
            name=name,
        )
    with _asking:
        channel = _channels[-1]
        channel.send(("import", name))
        return channel.receive()


def _complete(name: str) -> Any:
    """An attribute of our package, of which a machine has the guest's part only."""
    package = vars(sys.modules[OURS])
    if not _channels or package["__getattr__"] is not _complete or name.startswith("__"):
        raise AttributeError(name)
    source = _ask(OURS)[1]
    exec(compile(source, OURS, "exec"), package)
    return package["__getattr__"](name)


class _HostLoader:
    """Loads a module from its source; ``get_source`` is for tracebacks."""

    def __init__(self, source: bytes, path: str) -> None:
        self._source = source
        self._path = path

    def create_module(self, _spec: Any) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._source, self._path, "exec", dont_inherit=True), vars(module))

    def get_source(self, _name: str) -> str:
        return importlib.util.decode_source(self._source)


class _HostFinder:
    """The first of ``sys.meta_path``."""

    def find_spec(self, name: str, path: Any = None, _target: Any = None) -> Any:
        if not _channels or name.partition(".")[0] in _STANDARD:
            return None
        kind, *rest = _ask(name)
        if kind == SOURCE:
            source, origin, is_package = rest
            loader: Any = _HostLoader(source, origin)
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
