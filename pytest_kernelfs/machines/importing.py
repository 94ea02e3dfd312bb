"""Finds modules of the host for guests that import them: those of pure Python, as this process would."""

from __future__ import annotations

import marshal
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Any

from pytest_kernelfs.guest.importing import ABSENT, NAMESPACE, REFUSED, SOURCE


def module_for_guest(name: str, magic: bytes = b"") -> tuple[Any, ...]:
    """What a guest is told that imports the module ``name``; nothing is imported here for that.

    ``magic`` tells which byte code it runs: to compile takes an emulated processor long.
    Gives (SOURCE, source, byte code, path, whether it is a package), (NAMESPACE,), (ABSENT,), (REFUSED, why).
    """
    if name.partition(".")[0] in sys.stdlib_module_names:
        return (ABSENT,)
    try:
        spec = _spec(name)
        if spec is None:
            # Made up by pytest, which may import test modules without their packages.
            return (NAMESPACE,) if name in sys.modules else (ABSENT,)
        kind, *rest = _find(name, spec)
    except OSError as error:
        return REFUSED, f"vm.call: the module {name} cannot be read: {error}"
    except (ImportError, AttributeError, ValueError):  # as some finders say of names that are none
        return (ABSENT,)
    if kind != SOURCE:
        return kind, *rest
    source, origin, is_package = rest
    code = _byte_code(source, origin) if magic == MAGIC_NUMBER else b""
    return SOURCE, source, code, origin, is_package


def _byte_code(source: bytes, origin: str) -> bytes:
    try:
        return marshal.dumps(compile(source, origin, "exec", dont_inherit=True))
    except (SyntaxError, ValueError):
        return b""  # the guest says what is wrong with it, where it is imported


def _find(name: str, spec: ModuleSpec) -> tuple[Any, ...]:
    is_package = spec.submodule_search_locations is not None
    origin = spec.origin or ""
    if is_package and (spec.loader is None or not spec.has_location):
        return (NAMESPACE,)
    if origin.endswith(".py"):
        return SOURCE, Path(origin).read_bytes(), origin, is_package
    if origin.endswith(tuple(EXTENSION_SUFFIXES)):
        return REFUSED, (
            f"vm.call: the module {name} is an extension in machine code ({origin}); only modules of pure "
            "Python can be brought into the machine"
        )
    get_source = getattr(spec.loader, "get_source", None)
    source = get_source(name) if get_source is not None else None
    if source is None:
        return REFUSED, f"vm.call: the module {name} has no source on the host ({origin or 'built in'})"
    return SOURCE, source.encode(), origin, is_package


def _spec(name: str) -> ModuleSpec | None:
    """That of the module if it is loaded, else what an import would find."""
    loaded = getattr(sys.modules.get(name), "__spec__", None)
    if loaded is not None:
        spec: ModuleSpec = loaded
        return spec
    parent, _, _ = name.rpartition(".")
    path = None
    if parent:
        above = _spec(parent)
        path = above.submodule_search_locations if above is not None else None
        if path is None:
            return None
    try:
        found = (finder.find_spec(name, path) for finder in sys.meta_path)
        return next((spec for spec in found if spec is not None), None)
    except KeyError:
        # A namespace in a package that is not loaded; files are looked up by the last part of the name.
        return PathFinder.find_spec(name.rpartition(".")[2], path)
