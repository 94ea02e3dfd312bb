"""The guest's code as it is sent to a machine that has nothing of ours: held in memory there."""

from __future__ import annotations

import importlib.util
import marshal
import struct
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pytest_kernelfs.machines.initramfs.userland import guest_sources

MARK = b"kernelfs-tenant "
"""Before this, the other side may print what it likes; after it comes Python's magic number, in hex."""

# Not to be read ahead: what follows is not for this program. The format 2 of marshal is the same everywhere.
BOOTSTRAP = f"""\
import os, sys, marshal, zlib, importlib.util
os.write(1, b"\\n{MARK.decode()}" + importlib.util.MAGIC_NUMBER.hex().encode() + b"\\n")
def read(size):
    data = b""
    while len(data) < size:
        part = os.read(0, size - len(data))
        if not part:
            sys.exit(1)
        data += part
    return data
parcel = marshal.loads(zlib.decompress(read(int.from_bytes(read(4), "big"))))
exec(parcel["loader"], {{"parcel": parcel}})
"""

_LOADER = """\
import importlib.abc, importlib.util, marshal, sys
class Parcel(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name in parcel["modules"]:
            return importlib.util.spec_from_loader(name, self, is_package=name in parcel["packages"])
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        content = parcel["modules"][module.__name__]
        if parcel["compiled"]:
            code = marshal.loads(content)
        else:
            code = compile(content, module.__name__.replace(".", "/") + ".py", "exec")
        exec(code, module.__dict__)
sys.meta_path.insert(0, Parcel())
from pytest_kernelfs.guest import tenant
ours = [name for name in parcel["modules"] if name.startswith("pytest_kernelfs.guest.")]
tenant.main(parcel["settings"], ours)
"""
_PACKAGES = ("pytest_kernelfs", "pytest_kernelfs.guest", "execnet")


def pack(magic: bytes, settings: Mapping[str, Any]) -> bytes:
    """What answers the mark of a Python with that magic number, to start ``guest.tenant`` there.

    ``settings`` are plain values.
    """
    compiled = magic == importlib.util.MAGIC_NUMBER
    content = {
        "loader": _LOADER,
        "packages": list(_PACKAGES),
        "modules": _modules(compiled),
        "compiled": compiled,
        "settings": dict(settings),
    }
    data = zlib.compress(marshal.dumps(content, 2), 1)
    return struct.pack("!I", len(data)) + data


@cache
def _modules(compiled: bool) -> dict[str, bytes]:
    """Module name -> its code if Python over there is the same, else its source."""
    sources = {_module_name(name): path for name, path in guest_sources()}
    empty = {name: b"" for name in _PACKAGES if name not in sources}
    found = {name: path.read_bytes() for name, path in sources.items()} | empty
    if not compiled:
        return found
    return {name: marshal.dumps(_compile(name, source)) for name, source in found.items()}


def _compile(name: str, source: bytes) -> Any:
    return compile(source, name.replace(".", "/") + ".py", "exec", dont_inherit=True)


def _module_name(path: str) -> str:
    parts = Path(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
